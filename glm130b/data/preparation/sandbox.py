"""The one door to Jinja: prompt templates, which are programs of strangers, rendered where they can do no harm.

A template reads its record and writes text; it reaches no attribute of Python's, no file and no other template. Its
random choices are a pure function of the record. What it may write, count, compute and keep is bounded: every loop,
call and filter, ``+`` and ``~`` is paid for from one budget, so that it ends within seconds and fits memory.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, Undefined, meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from glm130b.data.preparation.chance import chance

MOST_CHARACTERS = 1_000_000
"""Of one rendered text."""
MOST_NUMBERS = 100_000
"""That all ``range`` calls of one rendering count together; also the largest width and exponent."""

MOST_WORK = 300_000_000
"""Of one rendering, in characters or items that are made; a turn of a loop or a call costs ``_STEP_WORK`` beside."""
_STEP_WORK = 3000

_GLOBALS = ("dict", "joiner", "namespace")
_LEFT_OUT_FILTERS = ("batch", "center", "format", "indent", "slice", "urlize", "wordwrap")
"""Those that build any size from one small number, or are slow."""
_OTHER_TEMPLATES = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)

RenderTemplate = Callable[[Mapping[str, Any], str], str]
"""From the variables of a template and the identity of the record to the text. Raises ValueError with what is wrong
with the record, and ForbiddenTemplate."""


class ForbiddenTemplate(Exception):
    """A template that reaches for what the sandbox does not give it: no record can mend that."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with what PromptSource's templates use (``zip``, ``choice``, ``most_frequent``, ``highlight``) and nothing
    that reads the machine or a clock."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(autoescape=False)
        self.globals = {name: self.globals[name] for name in _GLOBALS} | {
            "range": self._range,
            "zip": zip,
            _Paid.JOINED: self._joined,
            _Paid.TURNS: self._turns,
        }
        for name in _LEFT_OUT_FILTERS:
            del self.filters[name]
        self.filters |= {
            "choice": self._choice,
            "random": self._choice,
            "most_frequent": _most_frequent,
            "highlight": lambda text: text,
        }
        self.filters = {name: self._paid(function) for name, function in self.filters.items()}
        self._identity, self._num_choices, self._num_numbers, self._work = "", 0, 0, 0

    def compiled(self, source: str) -> tuple[RenderTemplate, frozenset[str]]:
        """A template and the variables it reads. Raises ForbiddenTemplate, and ValueError for what is no Jinja."""
        try:
            tree = self.parse(source)
            template = self.from_string(_Paid().visit(self.parse(source)))
        except (TemplateError, RecursionError) as error:
            line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
            raise ValueError(f"is no Jinja ({line}{error})") from None
        if next(tree.find_all(_OTHER_TEMPLATES), None):
            raise ForbiddenTemplate("reads another template")
        for access in tree.find_all(nodes.Getattr):
            if access.attr.startswith("_"):
                raise ForbiddenTemplate(f"reaches for {access.attr}")

        def render(variables: Mapping[str, Any], identity: str) -> str:
            self._identity, self._num_choices, self._num_numbers, self._work = identity, 0, 0, 0
            try:
                return _bounded(template.generate(variables))
            except SecurityError as error:
                raise ForbiddenTemplate(f"reaches for what it may not ({error})") from None
            except (
                TemplateError,
                ArithmeticError,
                AssertionError,
                AttributeError,
                LookupError,
                NotImplementedError,
                RecursionError,
                TypeError,
                ValueError,
            ) as error:
                raise ValueError(f"cannot be rendered ({error})") from None

        names = tree.find_all(nodes.Name)  # meta takes a namespace that is set in a loop for a variable
        own = {name.name for name in names if name.ctx != "load"}
        return render, frozenset(meta.find_undeclared_variables(tree)) - own - self.globals.keys()

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``+``, ``*``, ``**`` and ``%``, kept from building what does not fit memory."""
        if operator == "+":
            self._spend(_STEP_WORK + _length(left) + _length(right))
        elif operator == "%":
            _check_widths(left)
        elif operator == "**" and max((abs(n) for n in (left, right) if isinstance(n, int)), default=0) > MOST_NUMBERS:
            raise ForbiddenTemplate(f"computes a power of or with a number above {MOST_NUMBERS}")
        elif operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                self._spend(_STEP_WORK + left.bit_length() * right.bit_length())
            for items, times in ((left, right), (right, left)):
                if isinstance(items, Sequence) and isinstance(times, int) and len(items) * times > MOST_CHARACTERS:
                    raise ForbiddenTemplate(f"repeats something to a length above {MOST_CHARACTERS}")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:
        """Any call that a template makes; methods of text such as ``ljust`` take widths."""
        numbers = [number for number in (*arguments, *named.values()) if isinstance(number, int)]
        if isinstance(getattr(function, "__self__", None), str) and max(numbers, default=0) > MOST_NUMBERS:
            raise ForbiddenTemplate(f"calls {function.__name__} with a number above {MOST_NUMBERS}")
        self._spend(_product(getattr(function, "__self__", None), *arguments, *named.values()))
        return super().call(context, function, *arguments, **named)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandbox's own ``str.format``, if ``value`` is that method of a text."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_widths(value.__self__)
        return wrapped

    def unsafe_undefined(self, value: Any, attribute: str) -> Undefined:
        """What the sandbox hides is an error at once; Jinja would write nothing in its place."""
        raise SecurityError(f"{attribute} of {type(value).__name__}")

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise ForbiddenTemplate("does too much for one record: it loops, calls or builds texts without end")

    def _joined(self, *parts: Any) -> str:
        """What stands between ``~``."""
        text = "".join(map(str, parts))
        self._spend(_STEP_WORK + len(text))
        return text

    def _turns(self, items: Iterable[Any]) -> Iterator[Any]:
        """What a loop goes through."""
        for item in items:
            self._spend(_STEP_WORK)
            yield item

    def _paid(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def paid(*arguments: Any, **named: Any) -> Any:
            self._spend(_product(*arguments, *named.values()))
            return function(*arguments, **named)

        return paid

    def _range(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._num_numbers += len(numbers)
        if self._num_numbers > MOST_NUMBERS:
            raise ForbiddenTemplate(f"counts through more than {MOST_NUMBERS} numbers")
        return numbers

    @pass_context  # else a choice of constants would be made once, when the template is compiled
    def _choice(self, context: Any, options: Sequence[Any]) -> Any:
        if not options:
            raise LookupError("there is nothing to choose from")
        self._num_choices += 1
        return options[int(chance("choice", self._identity, self._num_choices) * len(options))]


class _Paid(NodeTransformer):
    """Puts functions of the sandbox where Jinja leaves no other way to see what a template does."""

    JOINED, TURNS = "_joined", "_turns"

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call(self.JOINED, node.nodes, node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _call(self.TURNS, [node.iter], node.lineno)
        return node


def _call(name: str, arguments: list[Any], line: int) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load", lineno=line), arguments, [], None, None, lineno=line)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 0


def _product(*operands: Any) -> int:
    """At least what one call can make of these: texts put into each other as by ``replace``, or repeated."""
    factors = sorted((abs(it) if isinstance(it, int) else _length(it) for it in operands), reverse=True)
    return _STEP_WORK + math.prod(max(factor, 1) for factor in factors[:2])


def _check_widths(text: Any) -> None:
    if isinstance(text, str) and re.search(r"[%{:][^ ]*[0-9]{6}", text):
        raise ForbiddenTemplate("formats with a width of six digits")


def _most_frequent(items: Sequence[Any]) -> list[Any] | None:
    """The items that occur most often, in the order of their first occurrence."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most] or None


def _bounded(pieces: Iterable[str]) -> str:
    written, length = [], 0
    for piece in pieces:
        written.append(piece)
        length += len(piece)
        if length > MOST_CHARACTERS:
            raise ValueError(f"gives more than {MOST_CHARACTERS} characters")
    return "".join(written)
