"""Questions about the standard library whose answers stand in its source, worded in English and in Chinese."""

import ast
import builtins
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from demo_sources import Definition, Module, definitions

Pair = tuple[str, str]  # prompt, answer
Function = ast.FunctionDef | ast.AsyncFunctionDef

PAIRS_PER_KIND = {"english": 650, "chinese": 400}  # of a kind of fact in a language; where there are fewer, all
MOST_WORDS = 25  # of an answer
CHINESE_QUESTIONS = Path(__file__).parent / "demo" / "chinese_questions.tsv"

# Programs and left-overs that come with Python, and tkinter, whose many like-named methods would crowd out the rest.
NOT_ASKED_ABOUT = {"idlelib", "turtledemo", "distutils", "antigravity", "this", "tkinter"}
# Bases that put something else than themselves among a class's bases.
REPLACED_BASES = {"NamedTuple", "TypedDict"}

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "module": {
        "english": (
            "Which module of the standard library defines {subject}?",
            "In which Python module do I find {subject}?",
            "{subject} is part of one module. Which one?",
        ),
        "chinese": (
            "{subject} 属于哪个模块？",
            "标准库的哪个模块定义了 {subject}？",
            "我想用 {subject}，它在哪个模块里？",
        ),
    },
    "purpose": {
        "english": ("What does {subject} do?", "Describe {subject} in one sentence.", "What is {subject} for?"),
    },
    "parameters": {
        "english": (
            "Name the parameters of {subject}.",
            "Which parameters does {subject} take?",
            "What can be passed to {subject}?",
        ),
        "chinese": ("{subject} 有哪些参数？", "请列出 {subject} 的参数。", "调用 {subject} 时可以传入哪些参数？"),
    },
    "method": {
        "english": (
            "Which class of the module {place} has the method {subject}?",
            "In {place}, {subject} is a method of which class?",
            "To which class in {place} does {subject} belong?",
        ),
        "chinese": (
            "模块 {place} 里，方法 {subject} 属于哪个类？",
            "在 {place} 中，哪个类有 {subject} 方法？",
            "{place} 模块的 {subject} 是哪个类的方法？",
        ),
    },
    "base": {
        "english": (
            "What is the base class of {subject}?",
            "Which class does {subject} extend?",
            "{subject} inherits from which class?",
        ),
        "chinese": ("{subject} 的父类是什么？", "{subject} 继承自哪个类？", "类 {subject} 的基类叫什么？"),
    },
    "default": {
        "english": (
            "What is the default of the parameter {subject} of {place}?",
            "If {subject} is not given, what does {place} use?",
            "Which value does {subject} have by default in {place}?",
        ),
        "chinese": (
            "{place} 的参数 {subject} 默认值是什么？",
            "调用 {place} 时不写 {subject}，用的是什么值？",
            "在 {place} 里，{subject} 的默认值是多少？",
        ),
    },
}


class Fact(NamedTuple):
    """One thing that can be asked: ``Fact("default", subject="width", place="textwrap.wrap", answer="70")``.

    ``place`` is the module or function that ``subject`` is looked up in, empty where the subject's name says it all.
    """

    kind: str
    subject: str
    place: str
    answer: str


def instruction_pairs(modules: Iterable[Module]) -> list[Pair]:
    """Prompts with short answers: a fixed draw of the facts of each kind, and the questions written by hand."""
    pairs = hand_written_pairs()
    facts = library_facts(modules)
    for kind, languages in WORDINGS.items():
        of_kind = [fact for fact in facts if fact.kind == kind]
        for language, wordings in languages.items():
            drawn = random.Random(f"{kind} {language}").sample(of_kind, min(PAIRS_PER_KIND[language], len(of_kind)))
            pairs += [worded(fact, wordings[index % len(wordings)]) for index, fact in enumerate(drawn)]
    return pairs


def worded(fact: Fact, wording: str) -> Pair:
    """The prompt that asks for the fact, and its answer."""
    return wording.format(subject=fact.subject, place=fact.place), fact.answer


def hand_written_pairs() -> list[Pair]:
    """The Chinese questions whose answers stand in ``demo/chinese.txt``."""
    lines = CHINESE_QUESTIONS.read_text(encoding="utf-8").splitlines()
    return [(prompt, answer) for prompt, answer in (line.split("\t") for line in lines)]


def library_facts(modules: Iterable[Module]) -> list[Fact]:
    """Every fact about the public part of the modules, and the base classes of the built-in exceptions."""
    facts = exception_facts()
    homes: list[tuple[str, str]] = []  # name of a class or function, module
    for module in modules:
        if not is_public(module.name):
            continue
        tree = module.tree()
        defined = public_definitions(tree.body, module.name)
        homes += [(node.name, module.name) for name, node in defined.items() if name == f"{module.name}.{node.name}"]
        facts += method_facts(tree, module.name)
        for name, node in defined.items():
            for facts_of in FACTS_OF_A_DEFINITION:
                facts += facts_of(name, node)
    facts += module_facts(homes)
    return [fact for fact in facts if len(fact.answer.split()) <= MOST_WORDS]


def is_public(name: str) -> bool:
    """Whether a dotted name has no private part and is not under a module of ``NOT_ASKED_ABOUT``."""
    parts = name.split(".")
    return parts[0] not in NOT_ASKED_ABOUT and not any(part.startswith("_") for part in parts)


def public_definitions(body: Sequence[ast.stmt], place: str) -> dict[str, Definition]:
    """Public classes and functions by dotted name. Names that are defined twice are ambiguous and left out."""
    found = list(definitions(body, place))
    times = Counter(name for name, _ in found)
    return {name: node for name, node in found if times[name] == 1 and is_public(name)}


def exception_facts() -> list[Fact]:
    """What each built-in exception inherits from, without second names such as IOError."""
    exceptions = {
        name: value
        for name, value in vars(builtins).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__name__ == name
    }
    return [Fact("base", name, "", value.__bases__[0].__name__) for name, value in sorted(exceptions.items())]


def module_facts(homes: Sequence[tuple[str, str]]) -> list[Fact]:
    """Where a class or function is defined, for the names that only one module defines."""
    times = Counter(name for name, _ in homes)
    return [Fact("module", name, "", module) for name, module in homes if times[name] == 1]


def method_facts(tree: ast.Module, module: str) -> list[Fact]:
    """The class of each public method whose name no other class of the module, however hidden, has in its body."""
    every_class = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    times = Counter(name for class_node in every_class for name in set(names_bound_in(class_node)))
    return [
        Fact("method", node.name, module, class_node.name)
        for class_node in every_class
        if class_node in tree.body
        for node in class_node.body
        if isinstance(node, Function) and times[node.name] == 1 and is_public(f"{class_node.name}.{node.name}")
        if not is_property(node)
    ]


def names_bound_in(class_node: ast.ClassDef) -> Iterator[str]:
    """The names of the methods of a class and of what its body assigns: ``getstate = setstate = _not_here``."""
    for node in class_node.body:
        if isinstance(node, Function):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def is_property(node: Function) -> bool:
    """Whether decorators make the function an attribute: ``@property``, ``@cached_property``, ``@name.setter``."""
    return any(ast.unparse(name).endswith(("property", ".setter", ".deleter")) for name in node.decorator_list)


def purpose_facts(name: str, node: Definition) -> Iterator[Fact]:
    """What the definition is for, in the first sentence of its docstring."""
    sentence = first_sentence(ast.get_docstring(node) or "")
    if sentence:
        yield Fact("purpose", name, "", sentence)


def parameter_facts(name: str, node: Definition) -> Iterator[Fact]:
    """The names of a function's parameters, with the stars of the variable ones and without ``self`` and ``cls``."""
    if isinstance(node, Function) and not is_property(node):
        parameters = node.args
        names = [parameter.arg for parameter in [*parameters.posonlyargs, *parameters.args]]
        names += [f"*{parameters.vararg.arg}"] if parameters.vararg else []
        names += [parameter.arg for parameter in parameters.kwonlyargs]
        names += [f"**{parameters.kwarg.arg}"] if parameters.kwarg else []
        shown = [parameter for parameter in names if parameter not in {"self", "cls"}]
        if shown:
            yield Fact("parameters", name, "", ", ".join(shown))


def base_facts(name: str, node: Definition) -> Iterator[Fact]:
    """The base class of a class that has exactly one."""
    if isinstance(node, ast.ClassDef) and len(node.bases) == 1 and isinstance(node.bases[0], ast.Name | ast.Attribute):
        base = ast.unparse(node.bases[0])
        if base.rpartition(".")[2] not in REPLACED_BASES:
            yield Fact("base", name, "", base)


def default_facts(name: str, node: Definition) -> Iterator[Fact]:
    """The defaults of a function's parameters that are written as a number, a string or a truth value.

    None is left out: it would be most of the answers.
    """
    if isinstance(node, Function):
        positional = [*node.args.posonlyargs, *node.args.args]
        parameters = [*positional[len(positional) - len(node.args.defaults) :], *node.args.kwonlyargs]
        for parameter, default in zip(parameters, [*node.args.defaults, *node.args.kw_defaults], strict=True):
            if isinstance(default, ast.Constant) and default.value is not None and is_public(parameter.arg):
                yield Fact("default", parameter.arg, name, repr(default.value))


FACTS_OF_A_DEFINITION: tuple[Callable[[str, Definition], Iterator[Fact]], ...] = (
    purpose_facts,
    parameter_facts,
    base_facts,
    default_facts,
)


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring on one line; empty if it opens with a call, an example or too few words."""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    end = re.search(r"(?<!e\.g)(?<!i\.e)(?<!etc)[.!?](?=\s|$)", paragraph)
    sentence = paragraph[: end.end()] if end else paragraph
    opens_with_a_call = re.match(r"[\w.]+\(|>>>|\S+ *->", sentence)
    return "" if opens_with_a_call or not 3 <= len(sentence.split()) <= MOST_WORDS else sentence
