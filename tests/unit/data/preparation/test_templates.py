"""PromptSource's templates: what they write, how one is drawn, and what is wrong with a file."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.preparation.rendering import Pair, PairsOf
from glm130b.data.preparation.templates import Template, TemplatedPairs, load_templates

NEWS = r"""
dataset: ag_news
templates:
  24e44a81-a18a-42dd-a71c-5b31b2d2cb39: !Template
    answer_choices: World politics ||| Sports ||| Business ||| Science and technology
    id: 24e44a81-a18a-42dd-a71c-5b31b2d2cb39
    jinja: "What label best describes this news article?\n{{text}} ||| \n{{answer_choices[label]\
      \ }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages:
      - en
      metrics:
      - Accuracy
      original_task: true
    name: classify_question_first
    reference: ''
  8fdc1056-1029-41a1-9c67-354fc2b8ceaf: !Template
    answer_choices:
    - Politician
    - Athlete
    - Business executive
    - Scientist
    id: 8fdc1056-1029-41a1-9c67-354fc2b8ceaf
    jinja: '{{text}}

      To which of {{ answer_choices[:-1] | join(", ") }} or {{ answer_choices[-1] }}

      would you recommend it? ||| {{ answer_choices [label] }}'
    metadata: !TemplateMetadata
      choices_in_prompt: true
      metrics: []
      original_task: false
    name: recommend
    reference: Adapted from the prompt "classify"
"""

SQUAD = r"""
dataset: squad_v2
templates:
  0: !Template
    answer_choices: null
    id: a
    jinja: '{% set seq = [ "Answer the question.", "Can you tell me the answer?", "Now answer." ] %}
      {{ context }}

      {{ seq | choice }}

      {{ question }} |||

      {% if answers.text | length > 0 %}{{ answers["text"] | most_frequent | choice }}{% endif %}'
    metadata: !TemplateMetadata {}
    name: answer
    reference: ''
  1: !Template
    answer_choices: '{% for option in options %}{{ option.label }}{% if not loop.last %} ||| {% endif %}{% endfor %}'
    id: b
    jinja: '{% if answers.text %}{% set ns = namespace(found=0) %}
      {% for start, text in zip(answers.start, answers.text) %}{% if start > 3 %}
      {% set ns.found = ns.found + 1 %}{% endif %}{% endfor %}How many of {{ range(2) | list | length }}
      are late? ||| {{ ns.found }} {{ answer_choices | join("/") }}{% endif %}'
    metadata: !TemplateMetadata {}
    name: late
    reference: ''
"""


def templates(folder: Path, text: str) -> tuple[Template, ...]:
    file = folder / "templates.yaml"
    file.write_text(text)
    return load_templates(file)


def renderer(found: tuple[Template, ...], *, all_templates: bool = True) -> PairsOf:
    pairs = pickle.loads(pickle.dumps(TemplatedPairs(found, all_templates)))
    return pairs.for_shard(lambda side: False)  # type: ignore[no-any-return]


def inline(jinja: str, choices: str | None = None) -> PairsOf:
    return renderer((Template("inline", jinja, choices, "file.yaml"),))


def test_templates_of_a_classification(tmp_path: Path) -> None:
    found = templates(tmp_path, NEWS)
    assert [template.name for template in found] == ["classify_question_first", "recommend"]
    record = {"text": "The cup was won.", "label": 1}
    first = "What label best describes this news article?\nThe cup was won."
    second = (
        "The cup was won.\nTo which of Politician, Athlete, Business executive or Scientist\nwould you recommend it?"
    )
    assert renderer(found)(record) == [
        Pair(first, "Sports", side=first, form="classify_question_first"),
        Pair(second, "Athlete", side=first, form="recommend"),
    ]


def test_templates_with_choices_loops_and_nothing_to_say(tmp_path: Path) -> None:
    pairs = renderer(templates(tmp_path, SQUAD))
    record: dict[str, Any] = {
        "context": "Tea is old.",
        "question": "What is old?",
        "answers": {"text": ["Tea", "tea", "Tea"], "start": [0, 4, 5]},
        "options": [{"label": "y"}, {"label": "n"}],
    }
    answer, late = pairs(record)
    assert answer.prompt.startswith("Tea is old.\n")
    assert answer.prompt.endswith("\nWhat is old?")
    assert answer.answer == "Tea"
    assert (late.prompt.split(), late.answer) == (["How", "many", "of", "2", "are", "late?"], "2 y/n")
    record["answers"] = {"text": [], "start": []}
    assert pairs(record) == []


def test_chance_is_the_records_own(tmp_path: Path) -> None:
    found = templates(tmp_path, NEWS)
    records = [{"text": f"text {number}", "label": number % 4} for number in range(400)]
    one = renderer(found, all_templates=False)
    drawn = [one(record) for record in records]
    again = renderer(found, all_templates=False)
    backwards = [again(dict(reversed(record.items()))) for record in reversed(records)]
    assert drawn == backwards[::-1]
    counts = Counter(pair.form for (pair,) in drawn)
    assert len(counts) == 2
    assert min(counts.values()) > 150
    choose = inline("{{ x }}{{ [1, 2, 3] | choice }}{{ [1, 2, 3] | random }} ||| a")
    chosen = Counter(choose({"x": f"{number}."})[0].prompt.split(".")[1] for number in range(900))
    assert len(chosen) == 9
    assert min(chosen.values()) > 60


@given(st.text(alphabet="ab| \n", max_size=12), st.text(alphabet="ab|", min_size=1, max_size=12))
def test_pipes_in_data_never_split(text: str, answer: str) -> None:
    pairs = inline("Q {{ texts[0] }} ||| {{ d.answer }}{{ answer_choices | length }}", "{{ texts[0] }} ||| no")
    (pair,) = pairs({"texts": [text], "d": {"answer": answer}})
    assert (pair.prompt, pair.answer) == (f"Q {text}".strip(), f"{answer}2")


@pytest.mark.parametrize(
    ("jinja", "record", "reason"),
    [
        ("{{ a }} ||| {{ b }} {{ c }}", {"b": "x"}, "has no a and no c, which the template 'inline' reads; write it"),
        ("{{ a.b.c }} ||| x", {"a": {}}, "the template 'inline' cannot be rendered"),
        ("{{ a | choice }} ||| x", {"a": []}, "the template 'inline' cannot be rendered .there is nothing to choose"),
        ("{{ a / 0 }} ||| x", {"a": 1}, "the template 'inline' cannot be rendered .division by zero"),
        ("a ||| b ||| c", {}, r"the template 'inline' writes \|\|\| 2 times; write it once"),
        ("{{ a }} ||| x", {"a": 1, "answer_choices": []}, "has a field answer_choices, which templates keep"),
        ("{{ a }} ||| x", {"a": "x" * 1_000_001}, "gives more than 1000000 characters"),
    ],
)
def test_a_record_that_does_not_suit_is_rejected(jinja: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        inline(jinja)(record)


@pytest.mark.parametrize("jinja", ["Q ||| {{ answer_choices[label] }}", "{% if label > 5 %}Q ||| A{% endif %}", "|||A"])
def test_a_template_that_writes_no_prompt_or_no_answer_passes_the_record_over(jinja: str) -> None:
    assert inline(jinja, "yes ||| no")({"label": 4}) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no templates; write them as PromptSource does"),
        ("templates: {}", "has no templates"),
        ("templates: {a: !Template {name: n, jinja: no pipes}}", r"template a has no jinja with \|\|\|; write"),
        ("templates: {a: 3}", r"template a has no jinja"),
        ("templates: {a: !Template {name: n, jinja: 'x {% if %} ||| y'}}", "the template 'n' is no Jinja .line 1: "),
        ("templates: {a: !!python/object/apply:os.system [ls]}", "could not determine a constructor for the tag"),
        ("templates: !!int ''", "tag:yaml.org,2002:int does not fit this value"),
        ("templates: {a: !!timestamp soon}", "timestamp does not fit this value"),
        (100_000 * "[", "the YAML there is nested too deep; flatten it"),
        ("templates: {a: !Other {}}", "could not determine a constructor for the tag '!Other'"),
        (
            "templates: {a: !Template {name: n, jinja: 'a|||b'}, b: !Template {name: n, jinja: 'c|||d'}}",
            "the name 'n' is given to 2 templates; name each apart",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        templates(tmp_path, text)
    assert all(str(tmp_path / "templates.yaml") in line for line in error.value.problems)


def test_all_problems_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    entries = {"a": {"jinja": "x"}, "b": {"jinja": "{{ x.__class__ }} ||| y"}, "c": {"jinja": "{{ ||| y"}}
    with pytest.raises(UserError) as error:
        templates(tmp_path, json.dumps({"templates": entries}))
    assert len(error.value.problems) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read .No such file or directory.; name a templates.yaml"):
        load_templates(tmp_path / "none.yaml")
