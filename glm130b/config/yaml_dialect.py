"""The YAML of our configs: plain data, numbers as one writes them, no key twice.

PyYAML speaks YAML 1.1, where ``8e-5`` is text, ``no`` is false and ``010`` is eight. Here only ``true`` and ``false``
are booleans, ``8e-5`` is a number, a key is the text that stands there, and writing a key twice is an error. What
aliases and nesting can make of a short text is bounded.
"""

import re
from typing import Any

import yaml

from glm130b.config.errors import UserError

_NUMBERS_AND_WORDS = {
    "null": (r"~|null|", ["~", "n", ""]),
    "bool": (r"true|false", list("tf")),
    "int": (r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        (
            r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?)"
            r"|[-+]?\.inf|\.nan"
        ),
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Takes unquoted text for a number or a word only as our dialect does."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or our dialect would take for something else."""


_MOST_VALUES = 100_000
_DEEPEST = 50
_TAG = "tag:yaml.org,2002:"
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What a quoted text can name by its number, and no file name or UTF-8 text can hold."""


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    """A number or word, as PyYAML makes it of text that our patterns let through, or that has its tag written out."""
    try:
        return yaml.SafeLoader.yaml_constructors[node.tag](loader, node)
    except (ValueError, LookupError):
        name = node.tag.removeprefix(_TAG)
        raise yaml.constructor.ConstructorError(
            None, None, f"{str(node.value)[:20]!r} cannot be read as {name}", node.start_mark
        ) from None


def _text(loader: _Loader, node: yaml.Node) -> str:
    text: str = loader.construct_scalar(node)  # type: ignore[arg-type]  # any other node is an error of its own
    if found := _NO_TEXT.search(text):
        raise yaml.constructor.ConstructorError(
            None, None, f"a text cannot hold the character U+{ord(found[0]):04X}", node.start_mark
        )
    return text


_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,  # any other tag is an error
    **dict.fromkeys((f"{_TAG}{name}" for name in _NUMBERS_AND_WORDS), _scalar),
    f"{_TAG}str": _text,
    f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _NUMBERS_AND_WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), _first)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    if not isinstance(node, yaml.MappingNode):  # it has its tag written out
        raise yaml.constructor.ConstructorError(None, None, "this is no mapping", node.start_mark)
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a single word", key_node.start_mark)
        key = _text(loader, key_node)
        if key in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f'the key "{key}" is written a second time', key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor(f"{_TAG}map", _mapping)


def _check_extent(root: yaml.Node) -> None:
    """Count as if every alias were written out, which it is later; one that holds itself is endlessly deep."""
    waiting, values = [(root, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        values += 1
        if values > _MOST_VALUES or depth > _DEEPEST:
            much = f"has more than {_MOST_VALUES} values" if values > _MOST_VALUES else f"is over {_DEEPEST} deep"
            raise yaml.composer.ComposerError(None, None, f"this {much}, aliases written out", node.start_mark)
        if isinstance(node, yaml.MappingNode):
            waiting += [(inner, depth + 1) for pair in node.value for inner in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(inner, depth + 1) for inner in node.value]


def parse(text: str, *, origin: str) -> Any:
    """The value that ``text`` writes down; ``origin`` names the text in a ``UserError`` about it.

    >>> parse("peak: 8e-5", origin="example")
    {'peak': 8e-05}
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_extent(node)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{origin}{place}: {error.problem or error.context}; mend the YAML there") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{origin}, line {line}: holds a character that YAML forbids; remove it") from None
    except RecursionError:
        raise UserError(f"{origin}: is over {_DEEPEST} deep; mend the YAML there") from None


def write(value: Any) -> str:
    """``value`` as YAML in block style, keys in their order; ``parse`` gives it back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
