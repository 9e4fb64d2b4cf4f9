"""The files that a config names."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.files import CORPUS_FILES, check_files
from glm130b.config.load import load_config
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
