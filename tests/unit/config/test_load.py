"""From a file and overrides to a config, and every mistake on the way in one clear line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.config.load import base_of, dump_config, load_config
from glm130b.config.ramp import Ramp
from glm130b.config.sections import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
TINY = Path(__file__).parents[1] / "run.yaml"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("families/*.yaml")])


def problems(path: Path, *overrides: str, world_size: int | None = None) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides, world_size=world_size)
    assert all("\n" not in problem for problem in caught.value.problems)
    return caught.value.problems


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_dumps_and_loads_back_equal(preset: Path, tmp_path: Path) -> None:
    config = load_config(preset)
    assert load_config(write(tmp_path / "resolved.yaml", dump_config(config))) == config


def test_the_base_of_a_file() -> None:
    families = CONFIGS / "families"
    assert base_of(families / "llama-7b.yaml") == families / "base" / "causal.yaml"
    assert base_of(TINY) is None


def test_the_dump_holds_every_default() -> None:
    dumped = yaml.safe_load(dump_config(load_config(TINY)))
    assert dumped["optimizer"]["beta2"] == 0.95
    assert dumped["precision"]["loss_scale"]["window_steps"] == 2000
    assert dumped["data"]["text"]["english"]["weight"] == {
        "start": 0.5,
        "end": 0.5,
        "from_samples": 0,
        "over_samples": 0,
    }


_FRACTIONS = st.floats(min_value=1e-12, max_value=1.0)
_RAMPS = st.builds(
    Ramp, start=_FRACTIONS, end=_FRACTIONS, from_samples=st.integers(0, 10**12), over_samples=st.integers(0, 10**12)
)
_TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=10) | st.sampled_from(["no", "8e-5", "010"])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    share=_RAMPS,
    weights=st.dictionaries(_TEXTS, _RAMPS, min_size=1, max_size=3),
    folder=_TEXTS,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    peak=st.floats(min_value=1e-3, max_value=10.0),
)
def test_any_config_dumps_and_loads_back_equal(
    share: Ramp,
    weights: dict[str, Ramp],
    folder: str,
    name: str,
    peak: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tree = load_config(TINY).model_dump()
    tree["name"], tree["folder"] = name, folder
    tree["objective"]["instruction_share"] = share.model_dump()
    tree["data"]["text"] = {key: {"path": folder, "weight": ramp.model_dump()} for key, ramp in weights.items()}
    tree["optimizer"]["learning_rate"]["peak"] = peak
    config = RunConfig.model_validate(tree)
    path = write(tmp_path_factory.mktemp("dump") / "resolved.yaml", dump_config(config))
    assert load_config(path) == config


def test_overrides_set_numbers_sections_entries_and_null() -> None:
    config = load_config(
        TINY,
        [
            "optimizer.learning_rate.peak=8e-3",
            "data.text.english.weight=0.25",
            "data.text.code.weight={start: 0, end: 1, over_samples: 100}",
            "data.text.poems={path: data/poems, weight: 2}",
            "batch.ramp=null",
            "parallel.data=",
            "objective.mask.coverage=0.2",
            "name=one",
            "name=two",
        ],
    )
    assert config.optimizer.learning_rate.peak == 8e-3
    assert config.data.text["english"].weight == Ramp(start=0.25, end=0.25)
    assert config.data.text["code"].weight == Ramp(start=0.0, end=1.0, over_samples=100)
    assert config.data.text["poems"].path == "data/poems"
    assert config.batch.ramp is None
    assert config.parallel.data is None
    assert config.objective.mask.coverage == 0.2
    assert config.objective.mask.span_mean_tokens == 3.0
    assert config.name == "two"


def test_an_override_of_a_section_replaces_it_whole() -> None:
    config = load_config(TINY, ["data.instructions={}", "objective.instruction_share=0", "batch.ramp.start=4"])
    assert config.data.instructions == {}
    assert config.batch.ramp is not None
    assert (config.batch.ramp.start, config.batch.ramp.increment) == (4, 4)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.x", "override 'model.x': is not of the form section.key=value; write for example model.num_layers=4"),
        (".x=3", "override '.x=3': is not of the form section.key=value; write for example model.num_layers=4"),
        (
            "seed=[",
            "override 'seed=[', line 1: expected the node content, but found '<stream end>'; mend the YAML there",
        ),
    ],
)
def test_an_override_that_cannot_be_read(override: str, problem: str) -> None:
    assert problems(TINY, override) == (problem,)


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems(TINY, "model.num_layers=four", "batch", "modle.x=1", "seed=-1")
    assert {problem.split(":")[0] for problem in found} == {"model.num_layers", "override 'batch'", "modle", "seed"}


def test_rules_across_sections_are_reported_after_the_values() -> None:
    found = problems(TINY, "model.num_attention_heads=3", "parallel.data=3", world_size=8)
    keys = [problem.split(":")[0] for problem in found]
    assert keys[:2] == ["model.hidden_size", "model.num_attention_heads"]
    assert "parallel" in keys
    assert "batch.global_size" in keys


def test_a_file_may_start_from_another(tmp_path: Path) -> None:
    write(tmp_path / "mid.yaml", f"base: {TINY}\nmodel: {{num_layers: 8}}\nbatch: {{ramp: null}}\n")
    path = write(tmp_path / "top.yaml", "base: mid.yaml\nname: top\nmodel: {hidden_dropout: 0.1}\n")
    tiny, top = load_config(TINY), load_config(path)
    assert (top.name, top.model.num_layers, top.model.hidden_dropout, top.batch.ramp) == ("top", 8, 0.1, None)
    assert top.model.hidden_size == tiny.model.hidden_size
    assert top.data == tiny.data


def test_an_empty_section_empties_that_of_the_base(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", f"base: {TINY}\nname: mine\ndata: {{instructions: {{}}}}\n")
    assert load_config(path, ["objective.instruction_share=0"]).data.instructions == {}


def test_null_takes_a_source_of_the_base_out(tmp_path: Path) -> None:
    sources = "text: {books: {path: data/books, weight: 1}, english: null, chinese: null}"
    path = write(tmp_path / "mine.yaml", f"base: {TINY}\nname: mine\ndata: {{{sources}}}\n")
    assert set(load_config(path).data.text) == {"books", "code"}
    assert set(load_config(path, ["data.text.code="]).data.text) == {"books"}
    (problem,) = problems(path, "data.text.cod=")
    assert problem.startswith("data.text.cod: null is not a section")


def test_a_circle_of_bases_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    path = write(tmp_path / "b.yaml", "base: a.yaml\n")
    (problem,) = problems(path)
    assert "base leads back to" in problem
    assert "a.yaml" in problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty; write a config"),
        (b"# nothing\n", "is empty; write a config"),
        (b"- a\n- b\n", "holds no key; write a config"),
        (b"name: x\nseed: 1\nname: y\n", ', line 3: the key "name" is written a second time'),
        (b"name: x\nseed: [1\n", ", line 3: expected ',' or ']'"),
        (b"name: x\nseed: \xff\n", ", line 2: is not UTF-8 text"),
        (b"base: [1]\n", "base is not a file name"),
        (b"base: none.yaml\n", "none.yaml: no such file"),
    ],
)
def test_a_file_that_is_no_config(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    (found,) = problems(path)
    assert found.startswith(str(tmp_path))
    assert problem in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(CONFIGS / "tinny.yaml") == (
        f"{CONFIGS}/tinny.yaml: no such file; the nearest is {CONFIGS / 'tiny.yaml'}",
    )
    assert problems(tmp_path / "x.yaml") == (f"{tmp_path}/x.yaml: no such file; check the path",)
    (problem,) = problems(tmp_path)
    assert problem == f"{tmp_path}: cannot be read (Is a directory); name a readable YAML file"


def test_what_is_too_large_for_a_run_is_refused(tmp_path: Path) -> None:
    (problem,) = problems(TINY, f"train_samples={10**30}")
    assert problem == f"train_samples: {10**30} does not fit 64 bits; write {2**63 - 1} or less"
    (problem,) = problems(write(tmp_path / "long.yaml", "# " + "x" * (1 << 20)))
    assert problem.endswith("long.yaml: is longer than 1048576 bytes, which no config is; name the file of a run")


def test_a_problem_is_one_printable_line(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "a\nb\x1b[31m.yaml")
    assert problem == f"{tmp_path}/a\\nb\\x1b[31m.yaml: no such file; check the path"
