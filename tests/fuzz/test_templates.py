"""Prompt templates of strangers: they write their text in time, or are refused; they reach nothing of Python's."""

import string
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st

from glm130b.data.preparation.templates import TemplatedPairs, load_templates
from tests.fuzz.examples import ends_well, numbers, search
from tests.fuzz.trees import SYNTAX, TREES, mutated

ATOMS = st.sampled_from(
    (
        *("text", "items", "namespace", "range", "zip", "dict", "joiner", "loop", "self", "cycler", "lipsum", "x"),
        *("answer_choices", "none", "true", "1", "0", "-1", "7", "99999", "100000", "1000000000", "1.5", "[]", "{}"),
        *("'a'", "''", "'__class__'", "'{0.__class__}'", "'%s'", "'%9d'", "'{:>99}'", "[text]", "items[0]", "range(9)"),
        *("range(99999)", "'a' * 99999", "[0] * 99999", "text * 9", "dict(a=1)", "namespace(a=1)", "zip(items)"),
    )
)
ATTRIBUTES = st.sampled_from(
    (
        *("__class__", "__mro__", "__subclasses__", "__globals__", "__init__", "__builtins__", "__getattribute__"),
        *("format", "format_map", "join", "split", "replace", "ljust", "zfill", "expandtabs", "translate", "encode"),
        *("append", "pop", "clear", "update", "items", "keys", "mro", "gi_frame", "f_back", "a", "count", "index"),
    )
)
FILTERS = st.sampled_from(
    (
        *("attr('__class__')", "attr('format')", "map(attribute='__class__')", "list", "join", "join(text)", "sum"),
        *("replace('', text * 99)", "replace('a', 'aaaaaaaaa')", "repeat", "tojson", "pprint", "xmlattr", "urlize"),
        *("wordwrap(1)", "truncate(1)", "sort", "unique", "groupby('a')", "batch(2)", "slice(3)", "indent", "center"),
        *("map('upper')", "select", "reject('none')", "random", "choice", "most_frequent", "int", "float", "string"),
        *("default(text)", "dictsort", "escape", "format(1)", "filesizeformat", "striptags", "forceescape", "items"),
    )
)


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(("+", "-", "*", "**", "/", "//", "%", "~", "==", "in", "and", "or"))
    return st.one_of(
        st.builds("({}).{}".format, inner, ATTRIBUTES),
        st.builds("({})[{}]".format, inner, inner),
        st.builds("({})({})".format, inner, inner),
        st.builds("({}).{}({})".format, inner, ATTRIBUTES, inner),
        st.builds("({}) | {}".format, inner, FILTERS),
        st.builds("({}) {} ({})".format, inner, operators, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("({}) if ({}) else ({})".format, inner, inner, inner),
    )


EXPRESSIONS = st.recursive(ATOMS, _deeper, max_leaves=8)


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{{% for x in {} %}}{}{{% endfor %}}".format, EXPRESSIONS, inner),
        st.builds("{{% for x in range(99999) %}}{}{{% endfor %}}".format, inner),
        st.builds("{{% if {} %}}{}{{% endif %}}".format, EXPRESSIONS, inner),
        st.builds("{{% set x = {} %}}{}".format, EXPRESSIONS, inner),
        st.builds("{{% set x %}}{}{{% endset %}}{{{{ x }}}}".format, inner),
        st.builds("{{% macro f(a) %}}{}{{{{ f(a) }}}}{{% endmacro %}}{{{{ f(text) }}}}".format, inner),
        st.builds("{{% macro f(a) %}}{{{{ f(a) }}}}{{{{ f(a) }}}}{}{{% endmacro %}}{{{{ f(1) }}}}".format, inner),
        st.builds("{{% filter upper %}}{}{{% endfilter %}}".format, inner),
        st.builds("{{% for x in items recursive %}}{}{{{{ loop(items) }}}}{{% endfor %}}".format, inner),
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% include {} %}}".format, EXPRESSIONS),
    )


TEMPLATES = st.recursive(
    st.builds("{{{{ {} }}}}".format, EXPRESSIONS) | st.text(string.printable, max_size=8), _blocks, max_leaves=5
)
RECORD = {"text": "some text", "items": [1, "two", {"a": [3]}]}


def write(path: Path, source: str, choices: str | None = None) -> Path:
    entry = {"jinja": f"{source} ||| answer", "answer_choices": choices, "name": "one"}
    path.write_text(yaml.safe_dump({"templates": {"1": entry}}), encoding="utf-8")
    return path


def rendered(path: Path, extra: object = None) -> None:
    """The pairs of a record, if the file is one of templates; a record may be refused, and stays as it is."""
    record = {**RECORD, "x": extra}
    before = repr(record)
    templates = ends_well(lambda: load_templates(path))

    def pairs() -> None:
        with suppress(ValueError):  # what is wrong with the record
            TemplatedPairs(templates or ()).for_shard(lambda _: False)(record)

    if templates:
        ends_well(pairs)
    assert repr(record) == before


@numbers(30, 300)
def test_any_template(examples: int, tmp_path: Path) -> None:
    def check(case: tuple[str, str | None, object]) -> None:
        rendered(write(tmp_path / "templates.yaml", *case[:2]), case[2])

    search(check, st.tuples(TEMPLATES, st.none() | TEMPLATES, TREES), examples=examples)


@numbers(30, 200)
def test_any_file_of_templates(examples: int, tmp_path: Path) -> None:
    tree = {
        "dataset": "d",
        "templates": {"1": {"jinja": "{{ text }} ||| a", "name": "one", "answer_choices": "a ||| b"}},
    }

    def check(text: str | bytes) -> None:
        path = tmp_path / "templates.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
        rendered(path)

    search(check, mutated(tree).map(yaml.safe_dump) | st.binary(max_size=40) | SYNTAX, examples=examples)


@pytest.mark.parametrize(
    "source",
    [
        "{{ text.__class__.__mro__[1].__subclasses__() }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(text) }}",
        "{{ '{a.__class__}'.format_map({'a': text}) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in 'a' * 100000 %}{% for j in 'a' * 100000 %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(t='a') %}{% for i in range(60) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "{% set ns = namespace(t='a') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t='aa') %}{% for i in range(60) %}{% set ns.t = ns.t.replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(t='aa') %}{% for i in range(60) %}{% set ns.t = ns.t|replace('a', 'aa') %}{% endfor %}",
        "{% set ns = namespace(t='aa') %}{% for i in range(60) %}{% set ns.t = ns.t.join(ns.t) %}{% endfor %}",
        "{% set ns = namespace(t=9) %}{% for i in range(60) %}{% set ns.t = ns.t * ns.t %}{% endfor %}{{ ns.t }}",
        "{% macro f(a) %}{{ f(a) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:{w}}'.format(1, w=999999999) }}",
        "{{ ('x' * 1000000) | wordwrap(1) | urlize }}",
        "{{ 1" + " + 1" * 20_000 + " }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ text" + ".a" * 5000 + " }}",
    ],
)
def test_tricks(source: str, tmp_path: Path) -> None:
    search(lambda text: rendered(write(tmp_path / "templates.yaml", text)), st.just(source), examples=1)
