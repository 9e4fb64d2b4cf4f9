"""What a template may not do."""

import pytest

from glm130b.config.errors import UserError
from glm130b.data.preparation.sandbox import ForbiddenTemplate, Sandbox
from glm130b.data.preparation.templates import Template, TemplatedPairs

RECORD = {"text": "some text", "items": [1, 2]}


def rendered(source: str) -> str:
    render, _ = Sandbox().compiled(source)
    return render(RECORD, "record")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ text.__class__.__mro__[1].__subclasses__() }}",
        "{{ text['__class__'] }}",
        "{{ text | attr('__class__') }}",
        "{{ items['__len__']() }}",
        "{% set x = '__cla' ~ 'ss__' %}{{ text[x] }}",
        "{{ [text] | map(attribute='__class__') | list }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ zip.__self__ }}",
        "{{ items.append(3) }}",
        "{{ items.clear() }}",
        "{% include 'secrets' %}",
        "{% import 'secrets' as secrets %}",
        "{% extends 'secrets' %}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 9 ** 99999999 }}",
        "{{ text.ljust(1000000000) }}",
        "{{ 'a'.expandtabs(tabsize=1000000000) }}",
        "{{ 'aaaaaaaaaa' * 100000 * 100000 }}",
        "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t ~ n.t %}{% endfor %}",
        "{% set n = namespace(t='a') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
        "{% set n = namespace(t=[1]) %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}",
        "{% set n = namespace(t='aa') %}{% for i in range(60) %}{% set n.t = n.t.replace('a', 'aa') %}{% endfor %}",
        "{% set n = namespace(t='aa') %}{% for i in range(60) %}{% set n.t = n.t | replace('a', n.t) %}{% endfor %}",
        "{% set n = namespace(t=9) %}{% for i in range(60) %}{% set n.t = n.t * n.t %}{% endfor %}",
        "{% for i in 'a' * 100000 %}{% for j in 'a' * 100000 %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
    ],
)
def test_escapes_are_forbidden(source: str) -> None:
    with pytest.raises(ForbiddenTemplate):
        rendered(source)
    assert RECORD["items"] == [1, 2]


@pytest.mark.parametrize(
    "source",
    [
        "{{ lipsum() }}",
        "{{ cycler.__init__ }}",
        "{{ self.__init__ }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a' | indent(1000000000) }}",
        "{{ ('x' * 1000000) | urlize }}",
        "{{ items | batch(1000000000, 'x') | list }}",
        "{{ open('/etc/passwd').read() }}",
        "{{ request.application }}",
        "{% for i in range(100) %}{{ text.ljust(10000) * 10 }}{% endfor %}",
    ],
)
def test_what_is_not_there_is_an_error(source: str) -> None:
    with pytest.raises((ForbiddenTemplate, ValueError)):
        rendered(source)


def test_a_forbidden_template_is_one_clear_error() -> None:
    pairs = TemplatedPairs((Template("n", "{{ text['__class__'] }} ||| y", None, "t.yaml"),)).for_shard(lambda _: False)
    with pytest.raises(UserError, match=r"t.yaml: the template 'n' reaches for what it may not .*; mend or remove it"):
        pairs(RECORD)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "{{ text | capitalize }}, {{ text.split(' ')[1] }}, {{ text | replace('some', 'a') }}",
            "Some text, text, a text",
        ),
        ("{% for a, b in zip(items, 'xy') %}{{ a }}{{ b }}{% if not loop.last %}, {% endif %}{% endfor %}", "1x, 2y"),
        ("{{ ['A', 'B'][loop.index] if loop is defined else 'C' }}{{ range(3) | list }}", "C[0, 1, 2]"),
        ("{{ [3, 1, 3, 1, 2] | most_frequent | join('/') }} {{ text | highlight }}", "3/1 some text"),
        (
            "{{ items | map('string') | join('-') }} {{ '%.2f' % 1.5 }} {{ 3 * 4 }} {{ 'ab' * 2 }} {{ 2 ** 5 }}",
            "1-2 1.50 12 abab 32",
        ),
        ("{% macro ask(x) %}Is it {{ x }}?{% endmacro %}{{ ask(text) }}", "Is it some text?"),
        ("{{ dict(a=1)['a'] }}{{ 100000 * 100000 }} {{ 200000 * 1.5 }}", "110000000000 300000.0"),
        ("{{ 'tel:123456789'.split(':')[1] }}", "123456789"),
    ],
)
def test_what_templates_use_is_there(source: str, text: str) -> None:
    assert rendered(source) == text


def test_every_rendering_counts_anew() -> None:
    render, _ = Sandbox().compiled("{% for i in range(60000) %}{% endfor %}{{ text }}")
    assert [render(RECORD, str(number)) for number in range(3)] == ["some text"] * 3


def test_the_variables_of_a_template() -> None:
    _, variables = Sandbox().compiled("{% for x in xs %}{{ x.y }}{{ loop.index }}{{ zip(a, range(2)) }}{% endfor %}")
    assert variables == {"xs", "a"}
