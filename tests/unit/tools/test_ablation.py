"""Which runs of an ablation are trained, and what is refused; the training itself is in tests/integration."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import ablation
import pytest

from glm130b.config.derived import num_parameters
from glm130b.config.errors import UserError
from glm130b.config.files import CORPUS_FILES
from glm130b.config.load import dump_config, load_config
from glm130b.config.sections import RunConfig

PRESETS = Path(__file__).resolve().parents[3] / "configs"
ABLATIONS = PRESETS / "ablations"


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that the tiny preset names, all empty."""
    data = load_config(ABLATIONS / "base.yaml").data
    sources = (*data.text.values(), *data.instructions.values())
    for file in (data.tokenizer, *(f"{source.path}/{name}" for source in sources for name in CORPUS_FILES)):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / data.tokenizer


@pytest.fixture
def configs(tmp_path: Path, demo: Path) -> Path:
    """A folder of two small configs."""
    folder = tmp_path / "pair"
    folder.mkdir()
    for name in ("one", "two"):
        text = f"base: {ABLATIONS / 'base.yaml'}\nfolder: {tmp_path / 'runs'}\nname: {name}\n"
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were trained, by a launcher that only writes what a run would leave."""
    names: list[str] = []

    def train(path: Path, config: RunConfig, overrides: Sequence[str]) -> None:
        names.append(config.name)
        leave(config)

    monkeypatch.setattr(ablation, "train", train)
    return names


def leave(config: RunConfig, *, samples: int | None = None, evaluated: bool = True) -> Path:
    """What a run up to ``samples`` leaves in its folder."""
    folder = Path(config.folder, config.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(config))
    reached = {"step": 1, "samples": samples or config.train_samples, "loss": 5.0}
    records = [{"kind": "train", "gradient_norm": 0.5, "tokens_per_second": 1.0, **reached}]
    records += [{"kind": "validation", **reached}] * evaluated
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_every_run_is_trained_once_and_compared(
    configs: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main([str(configs)]) == 0
    assert trained == ["one", "two"]
    page = (tmp_path / "runs" / "comparison.md").read_text()
    assert page.startswith("# pair\n")
    assert "| one | 5.000 | 5.000 |" in page
    assert page in capsys.readouterr().out
    assert ablation.main([str(configs)]) == 0
    assert trained == ["one", "two"]


@pytest.mark.parametrize(("samples", "evaluated"), [(640, True), (None, False)])
def test_an_interrupted_run_goes_on(configs: Path, trained: list[str], samples: int | None, evaluated: bool) -> None:
    leave(load_config(configs / "one.yaml"), samples=samples, evaluated=evaluated)
    leave(load_config(configs / "two.yaml"))
    assert ablation.main([str(configs)]) == 0
    assert trained == ["one"]


def test_a_line_that_a_kill_cut_short_is_no_end(configs: Path, trained: list[str]) -> None:
    metrics = leave(load_config(configs / "one.yaml")) / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert ablation.main([str(configs)]) == 0
    assert "one" in trained


def test_overrides_reach_every_run(configs: Path, trained: list[str], tmp_path: Path) -> None:
    assert ablation.main([str(configs), f"folder={tmp_path / 'elsewhere'}", "seed=5"]) == 0
    for name in ("one", "two"):
        assert load_config(tmp_path / "elsewhere" / name / "config.yaml").seed == 5


def test_a_run_of_another_config_is_not_taken_for_this_one(
    configs: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ablation.main([str(configs)]) == 0
    assert ablation.main([str(configs), "optimizer.weight_decay=0"]) == 2
    assert "one: was trained by another config than now; remove it, or write another folder" in capsys.readouterr().err


def test_all_problems_at_once(configs: Path, tmp_path: Path) -> None:
    (configs / "three.yaml").write_text("base: two.yaml\nfolder: other\n")
    (configs / "four.yaml").write_text("base: two.yaml\nseed: minus\n")
    with pytest.raises(UserError) as raised:
        ablation.read_configs(configs, [])
    seed, folder, name = raised.value.problems
    assert seed.startswith(f"{configs / 'four.yaml'}: seed: ")
    assert folder.startswith(f"folder: the runs go to {tmp_path / 'runs'}, other; ")
    assert name.startswith("name: 2 files of ")


def test_nothing_is_trained_before_every_run_may_start(
    configs: Path,
    demo: Path,
    trained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    layout = "parallel: {tensor: 4, pipeline: 2, data: 2}\nbatch: {micro_size: 2}\n"
    (configs / "wide.yaml").write_text(f"base: one.yaml\nname: wide\n{layout}")
    demo.unlink()
    assert ablation.main([str(configs)]) == 2
    one, two, wide, layout = capsys.readouterr().err.splitlines()
    for name, line in {"one": one, "two": two, "wide": wide}.items():
        assert line.startswith(f"ablation: error: {configs / name}.yaml: data.tokenizer: ")
    assert layout.startswith(f"ablation: error: {configs / 'wide'}.yaml: parallel: 16 processes (")
    assert "are too many for 2 cores, at most 4 each; write a smaller layout" in layout
    demo.touch()
    assert ablation.main([str(configs)]) == 2
    assert trained == []
    assert ablation.main([str(configs), "parallel.data=1"]) == 0


def test_finished_runs_are_compared_without_their_data(configs: Path, demo: Path, trained: list[str]) -> None:
    assert ablation.main([str(configs)]) == 0
    demo.unlink()
    assert ablation.main([str(configs)]) == 0


def test_a_folder_of_folders_is_no_ablation(tmp_path: Path) -> None:
    norms, positions = ABLATIONS / "norms", ABLATIONS / "positions-and-ffn"
    with pytest.raises(UserError) as raised:
        ablation.run_files(ABLATIONS)
    assert raised.value.problems == (f"{ABLATIONS}: has its runs in {norms}, {positions}; name one of these folders",)
    with pytest.raises(UserError, match=r"holds no \.yaml file"):
        ablation.run_files(tmp_path)


def test_bases_and_finished_runs_may_lie_below_a_folder(configs: Path, demo: Path, trained: list[str]) -> None:
    assert {path.stem for path in ablation.run_files(PRESETS / "families")} >= {"llama-7b", "palm-540b"}
    inside = f"folder={configs}"
    assert ablation.main([str(configs), inside]) == 0
    assert (configs / "one" / "config.yaml").exists()
    assert ablation.main([str(configs), inside]) == 0
    assert trained == ["one", "two"]


def test_a_failed_run_ends_it(configs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = []

    def run(command: list[str], *, check: bool) -> None:
        commands.append(command)
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(subprocess, "run", run)
    assert ablation.main([str(configs), "parallel.tensor=2"]) == 1
    (command,) = commands
    assert command[5:7] == ["--num_accelerators", "2"]
    assert command[7:] == [str(ablation.LAUNCH), str(configs / "one.yaml"), "parallel.tensor=2"]
    assert not (tmp_path / "runs").exists()


def test_the_norms_differ_in_nothing_else(demo: Path) -> None:
    configs = ablation.read_configs(ABLATIONS / "norms", [])
    placements = {config.model.norm_placement: config for config in configs.values()}
    assert set(placements) == {"deepnorm", "pre", "post", "sandwich"}
    first = placements["deepnorm"]
    for placement, config in placements.items():
        assert config.name == placement
        model = first.model.model_copy(update={"norm_placement": placement})
        assert config == first.model_copy(update={"name": placement, "model": model})


def test_positions_and_ffn_have_equal_matrices_and_differ_in_nothing_else(demo: Path) -> None:
    configs = {c.name: c for c in ablation.read_configs(ABLATIONS / "positions-and-ffn", []).values()}
    switches = {name: (c.model.positions, c.model.ffn) for name, c in configs.items()}
    assert switches == {
        "learned-2d-gelu": ("learned_2d", "gelu"),
        "alibi-gelu": ("alibi", "gelu"),
        "rope-gelu": ("rope", "gelu"),
        "rope-geglu": ("rope", "geglu"),
        "rope-swiglu": ("rope", "swiglu"),
    }
    chosen = configs["rope-geglu"]
    for name, config in configs.items():
        free = {key: getattr(chosen.model, key) for key in ("positions", "ffn", "ffn_hidden_size", "max_positions")}
        assert chosen == config.model_copy(update={"name": chosen.name, "model": config.model.model_copy(update=free)})
        tables = 2 * 256 * 128 if name.startswith("learned") else 0
        assert num_parameters(config.model) - tables == pytest.approx(num_parameters(chosen.model), rel=0.005)
