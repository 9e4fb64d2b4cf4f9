"""Multi-task files: the datasets they name, and every mistake in them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.preparation.few_shot import Variant, VariedPairs, Wording
from glm130b.data.preparation.mip import MipDataset, load_mip
from glm130b.data.preparation.rendering import PlainPairs
from glm130b.data.preparation.templates import TemplatedPairs, load_templates

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a multi-task file into the working directory, beside records and templates."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records").mkdir()
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / "records" / name).write_text('{"inputs": "q", "targets": "a"}\n')
    (tmp_path / "templates.yaml").write_text("templates: {a: !Template {name: n, jinja: '{{ inputs }} ||| y'}}")

    def written(text: str) -> Path:
        (tmp_path / "mip.yaml").write_text(text)
        return Path("mip.yaml")

    return written


def test_datasets_with_their_defaults_and_their_own(write: Write) -> None:
    mip = load_mip(
        write("""
templates_per_record: all
wording: {request: Denke nach.}
tasks:
  sentiment:
    datasets:
      imdb: {path: records}
      yelp: {path: null}
  extraction:
    cap: 200_000
    datasets:
      kelm: {path: records/a.jsonl, templates: templates.yaml, cap: 500_000, weight: 0.5}
      one:
        path: "records/*.jsonl"
        templates: templates.yaml
        templates_per_record: one
        variants: [{share: 0.5}, {share: 0.5, shots: 3, reasoning: true}]
""")
    )
    templates = load_templates(Path("templates.yaml"))
    a, b = Path("records/a.jsonl"), Path("records/b.jsonl")
    variants = Variant(share=0.5), Variant(share=0.5, shots=3, reasoning=True)
    varied = VariedPairs(TemplatedPairs(templates), variants, Wording(request="Denke nach."))
    assert mip.datasets == (
        MipDataset("sentiment/imdb", "records", (a, b), PlainPairs(), 100_000, 1.0),
        MipDataset(
            "extraction/kelm", "records/a.jsonl", (a,), TemplatedPairs(templates, all_templates=True), 500_000, 0.5
        ),
        MipDataset("extraction/one", "records/*.jsonl", (a, b), varied, 200_000, 1.0),
    )
    assert mip.skipped == ("sentiment/yelp",)
    assert mip.notice == "datasets without a path are left out (1): sentiment/yelp"


def test_variants_of_the_file_are_those_of_every_dataset(write: Write) -> None:
    mip = load_mip(write("variants: [{share: 1, shots: 2}]\ntasks: {t: {datasets: {d: {path: records}}}}"))
    assert mip.datasets[0].renderer == VariedPairs(PlainPairs(), (Variant(share=1, shots=2),), Wording())
    assert mip.notice is None


def test_the_example_of_the_page_on_instructions(write: Write) -> None:
    page = (Path(__file__).parents[4] / "docs" / "instructions.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    example = example.replace("data/imdb/*.jsonl", "records").replace("promptsource/imdb/", "")
    mip = load_mip(write(example.replace("data/reviews.parquet", "records/a.jsonl")))
    assert [(it.name, it.cap, it.weight) for it in mip.datasets] == [
        ("sentiment/imdb", 100_000, 1.0),
        ("sentiment/reviews", 5000, 2.0),
    ]
    assert mip.skipped == ("sentiment/yelp_review_full",)


def test_all_mistakes_of_a_file_are_named_at_once(write: Write) -> None:
    with pytest.raises(UserError) as error:
        load_mip(
            write("""
template_per_record: all
tasks:
  t:
    cap: 0
    datasets:
      a: {pth: x}
      b: {path: x, weight: 0, variants: [{shots: 2}]}
""")
        )
    problems = [problem.removeprefix("mip.yaml: ") for problem in error.value.problems]
    assert sorted(problem.split(";")[0] for problem in problems) == [
        "tasks.t.cap: 0 is refused (input should be greater than or equal to 1)",
        "tasks.t.datasets.a.path: missing",
        "tasks.t.datasets.a.pth: unknown key",
        "tasks.t.datasets.b.variants.0.share: missing",
        "tasks.t.datasets.b.weight: 0 is refused (input should be greater than 0)",
        "template_per_record: unknown key",
    ]
    assert any("the nearest is templates_per_record" in problem for problem in problems)


def test_missing_files_are_named_with_their_datasets_at_once(write: Write) -> None:
    with pytest.raises(UserError) as error:
        load_mip(
            write(
                "tasks: {t: {datasets: {a: {path: no.jsonl, templates: no.yaml}, "
                "b: {path: records, templates: c.yaml}}}}"
            )
        )
    starts = ["a.path: no.jsonl: no file there", "a.templates: no.yaml: cannot be", "b.templates: c.yaml: cannot be"]
    for problem, start in zip(error.value.problems, starts, strict=True):
        assert problem.startswith(f"mip.yaml: tasks.t.datasets.{start}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tasks: null is refused"),
        ("tasks: []", r"tasks: \[\] is refused"),
        ("tasks: {t: 3}", "tasks.t: 3 is refused"),
        ("tasks: {t: {datasets: {a: 3}}}", "tasks.t.datasets.a: 3 is refused"),
        ("templates_per_record: one", "tasks: missing; add it .the datasets by task."),
        ("tasks: {}", "no dataset has a path; write for one of them where its records lie"),
        ("tasks: {t: {datasets: {a: {path: null}}}}", "no dataset has a path"),
        ("tasks: {", "mip.yaml, line 1: .*; mend the YAML there"),
    ],
)
def test_a_file_that_is_none_is_refused(write: Write, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_mip(write(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read .No such file or directory.; configs/mip/glm-130b.yaml is an"):
        load_mip(tmp_path / "none.yaml")
