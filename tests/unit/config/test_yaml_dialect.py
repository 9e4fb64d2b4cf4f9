"""YAML as our configs are written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.config.yaml_dialect import parse, write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8e-5", 8e-5),
        ("1E3", 1000.0),
        ("2.0e-3", 2.0e-3),
        (".5", 0.5),
        ("-0.25", -0.25),
        ("1_000_000", 1_000_000),
        ("12", 12),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("e5", "e5"),
        ("v1.2.3", "v1.2.3"),
        ("{no: 1, 010: 2}", {"no": 1, "010": 2}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    parsed = parse(text, origin="text")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 'file.yaml, line 4: the key "c" is written a second time; mend the YAML there'),
        ("a: 1\n? [x, y]\n: 2\n", "file.yaml, line 2: a key must be a single word; mend the YAML there"),
        ("a: b: c\n", "file.yaml, line 1: mapping values are not allowed here; mend the YAML there"),
        ("a: 1\n\tb: 2\n", "file.yaml, line 2: found character '\\t' that cannot start any token; mend the YAML there"),
        ("a: &x [*x]\n", "file.yaml, line 1: this is over 50 deep, aliases written out; mend the YAML there"),
        ("a:\n  - " + "[" * 5000, "file.yaml: is over 50 deep; mend the YAML there"),
        ("a: 1\nb: !!int 0x\n", "file.yaml, line 2: '0x' cannot be read as int; mend the YAML there"),
        ("a: !!float b\n", "file.yaml, line 1: 'b' cannot be read as float; mend the YAML there"),
        ("a: !!bool b\n", "file.yaml, line 1: 'b' cannot be read as bool; mend the YAML there"),
        (f"a: {'9' * 5000}\n", "file.yaml, line 1: '99999999999999999999' cannot be read as int; mend the YAML there"),
        ("a: !!map [b]\n", "file.yaml, line 1: this is no mapping; mend the YAML there"),
        ('a: "\\0"\n', "file.yaml, line 1: a text cannot hold the character U+0000; mend the YAML there"),
        ('"\\ud83d": 1\n', "file.yaml, line 1: a text cannot hold the character U+D83D; mend the YAML there"),
        ("a: 1\nb: \x07\n", "file.yaml, line 2: holds a character that YAML forbids; remove it"),
        ("a: 1\nb: !!set {x, y}\n", "file.yaml, line 2: could not determine a constructor for the tag"),
        ("a: 1\n---\nb: 2\n", "file.yaml, line 2: but found another document; mend the YAML there"),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, origin="file.yaml")
    (message,) = caught.value.problems
    assert message.startswith(problem)
    assert "\n" not in message


def test_aliases_cannot_grow_without_end() -> None:
    """Each line has ten times the values of the one before: a million in all, of 300 letters."""
    laughs = "a0: &a0 1\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 7))
    with pytest.raises(UserError, match=r"this has more than 100000 values, aliases written out; mend the YAML there"):
        parse(laughs, origin="file.yaml")
    assert parse("a: &a [1]\nb: [*a, *a]\n", origin="file.yaml") == {"a": [1], "b": [[1], [1]]}


_TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8) | st.sampled_from(
    ["8e-5", "no", "010", "1:30", "null", "~", "", "2024-01-01", "1_0", ".5", "0x1f", "<<", "=", "- a", "a: b", " x "]
)
_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(_DATA)
def test_what_is_written_reads_back_equal(value: Any) -> None:
    assert parse(write(value), origin="text") == value
