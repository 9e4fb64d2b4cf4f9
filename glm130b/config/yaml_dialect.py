"""The YAML of our configs: plain data, numbers as one writes them, no key twice.

PyYAML speaks YAML 1.1, where ``8e-5`` is text, ``no`` is false and ``010`` is eight. Here only ``true`` and ``false``
are booleans, ``8e-5`` is a number, a key is the text that stands there, and writing a key twice is an error.
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


_PLAIN_DATA = ("null", "bool", "int", "float", "str", "seq")
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.construct_undefined,  # any other tag is an error
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (f"tag:yaml.org,2002:{name}" for name in _PLAIN_DATA)},
}
_Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _NUMBERS_AND_WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a single word", key_node.start_mark)
        if key_node.value in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f'the key "{key_node.value}" is written a second time', key_node.start_mark
            )
        mapping[key_node.value] = loader.construct_object(value_node, deep=True)
    return mapping


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str, *, origin: str) -> Any:
    """The value that ``text`` writes down; ``origin`` names the text in a ``UserError`` about it.

    >>> parse("peak: 8e-5", origin="example")
    {'peak': 8e-05}
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{origin}{place}: {error.problem or error.context}; mend the YAML there") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{origin}, line {line}: holds a character that YAML forbids; remove it") from None


def write(value: Any) -> str:
    """``value`` as YAML in block style, keys in their order; ``parse`` gives it back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
