"""The files that a config names."""

import errno
from pathlib import Path

import pytest

from glm130b.config import load, patience
from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.files import CORPUS_FILES, await_config, await_files, check_files
from glm130b.config.load import dump_config, load_config
from glm130b.config.sections import RunConfig

TINY = Path(__file__).parents[1] / "run.yaml"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Tiny with one text and one instruction set, all of whose files are there."""
    (tmp_path / "tokenizer.model").touch()
    for corpus in ("english", "facts"):
        (tmp_path / corpus).mkdir()
        for file in CORPUS_FILES:
            (tmp_path / corpus / file).touch()
    return load_config(
        TINY,
        [
            f"folder={tmp_path}/runs",
            f"data.tokenizer={tmp_path}/tokenizer.model",
            f"data.text={{english: {{path: {tmp_path}/english, weight: 1}}}}",
            f"data.instructions={{facts: {{path: {tmp_path}/facts, weight: 1}}}}",
        ],
    )


def test_all_files_there(config: RunConfig) -> None:
    check_files(config)


def test_every_missing_file_is_named_at_once(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").unlink()
    (tmp_path / "english" / "train.idx").unlink()
    (tmp_path / "english" / "validation.bin").unlink()
    (tmp_path / "facts").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as caught:
        check_files(config)
    tokenizer, english, facts = caught.value.problems
    assert tokenizer.startswith(f"data.tokenizer: {tmp_path}/tokenizer.model is no readable file; make it with")
    assert english.startswith(f"data.text.english.path: {tmp_path}/english lacks a readable train.idx, validation.bin;")
    assert facts.startswith(
        f"data.instructions.facts.path: {tmp_path}/facts is no folder, and no readable {tmp_path}/facts.bin and "
        f"{tmp_path}/facts.idx are there; make it with `glm130b prepare"
    )


def test_a_megatron_dataset_needs_its_two_files(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "facts").rename(tmp_path / "elsewhere")
    (tmp_path / "facts.bin").touch()
    with pytest.raises(UserError, match="facts is no folder"):
        check_files(config)
    (tmp_path / "facts.idx").touch()
    check_files(config)


def test_a_folder_in_place_of_a_file_is_missing(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "facts" / "train.bin").unlink()
    (tmp_path / "facts" / "train.bin").mkdir()
    with pytest.raises(UserError, match=r"facts lacks a readable train\.bin;"):
        check_files(config)


def test_a_run_folder_that_cannot_be_made_is_named(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^folder: .*file/run/tiny cannot be made, .*/file is no folder to write in;"):
        check_files(config.model_copy(update={"folder": f"{tmp_path}/file/run"}))
    check_files(config.model_copy(update={"folder": f"{tmp_path}/new/run"}))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("code", "kind", "mend"),
    [
        (errno.ESTALE, FileSystemGone, "bring its file system back"),
        (errno.EACCES, UserError, "give this user the right to read it, or mend the path"),
    ],
)
def test_a_file_that_nothing_is_known_of(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[UserError], mend: str
) -> None:
    def stat(path: Path, **_: object) -> None:
        raise OSError(code, "no answer", str(path))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(UserError) as caught:
        check_files(config)
    assert type(caught.value) is kind
    assert caught.value.problems == (f"{config.data.tokenizer}: cannot be read (no answer); {mend}",)


def last_start(config: RunConfig) -> None:
    """Leaves its config in the run's folder."""
    folder = Path(config.folder) / config.name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))


def test_a_restart_waits_for_what_was_there(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last_start(config)
    (tmp_path / "facts").rename(tmp_path / "away")
    told: list[str] = []
    monkeypatch.setattr(patience.time, "sleep", lambda _: (tmp_path / "away").rename(tmp_path / "facts"))
    await_files(config, tell=told.append)
    (line,) = told
    assert line.startswith(f"data.instructions.facts.path: {tmp_path}/facts is no folder")
    assert line.endswith("; the next try is in 1 s, for 600 s in all")


def test_a_path_that_was_changed_since_is_not_waited_for(config: RunConfig, tmp_path: Path) -> None:
    last_start(config)
    data = config.data.model_copy(update={"tokenizer": str(tmp_path / "slip.model")})
    with pytest.raises(UserError, match=r"^data\.tokenizer: \S+slip\.model is no readable file") as caught:
        await_files(config.model_copy(update={"data": data}), tell=lambda _: None)
    assert caught.value.exit_status == 2


def test_a_restart_without_its_files_may_be_started_again(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    (tmp_path / "facts").rename(tmp_path / "away")
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(FileSystemGone) as caught:
        await_files(config, tell=lambda _: None)
    assert sum(slept) == config.checkpoint.patience_seconds
    assert caught.value.exit_status == 1
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "data.tokenizer",
        "data.instructions.facts.path",
    ]
    assert "has not been for 600 s (checkpoint.patience_seconds)" in caught.value.problems[1]


def test_a_restart_waits_for_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for the one that it is based on; a mistake in either is none that may pass."""
    file, base = tmp_path / "run.yaml", tmp_path / "base.yaml"
    come_back = iter([lambda: file.write_text("base: base.yaml\nseed: 7"), lambda: base.write_bytes(TINY.read_bytes())])
    told: list[str] = []
    monkeypatch.setattr(patience.time, "sleep", lambda _: next(come_back)())
    assert await_config(str(file), [], tell=told.append) == load_config(TINY, ["seed=7"])
    assert [line.partition(": no such file; ")[0] for line in told] == [str(file), str(base)]
    with pytest.raises(UserError, match=r"^seed: ") as caught:
        await_config(str(file), ["seed=no"], tell=told.append)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_a_restart_without_its_config_may_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_answer(path: Path, mode: str) -> None:
        raise OSError(code, "no answer", str(path))

    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    monkeypatch.setattr(load.Path, "open", no_answer)
    with pytest.raises(FileSystemGone, match=r"^\S+run\.yaml: "):
        await_config(str(tmp_path / "run.yaml"), [], tell=lambda _: None)
    assert sum(slept) == 600
