"""Training a tokenizer: exact size, determinism, and errors that name the line."""

from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.config.errors import UserError
from glm130b.data import tokenizer_training
from glm130b.data.tokenizer import Tokenizer
from glm130b.data.tokenizer_training import train
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl


def test_equal_files_give_equal_models_of_exactly_the_size(folder: Path) -> None:
    files = [folder / "text.jsonl", folder / "other.jsonl"]
    models = [train(files, pieces=PIECES)[0] for _ in range(2)]
    assert models[0] == models[1] == (folder / "tokenizer.model").read_bytes()
    assert Tokenizer(models[0]).num_pieces == PIECES


def test_training_learns_the_text(tokenizer: Tokenizer) -> None:
    text = docstrings()[0][1]
    assert len(tokenizer.encode(text)) < 0.5 * len(text.encode())


def test_a_large_text_is_sampled_from_every_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_training, "SAMPLE_CHARACTERS", 10_000)
    model, share = train([folder / "text.jsonl", folder / "other.jsonl", folder / "pairs.jsonl"], pieces=400)
    assert 0 < share < 0.5
    chinese = "今天读了"
    assert len(Tokenizer(model).encode(chinese)) < len(chinese.encode())


def test_the_command_writes_the_file_and_one_line(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "small.model"
    assert main(["tokenizer", str(folder / "text.jsonl"), "--output", str(output), "--pieces", "400"]) == 0
    printed = capfd.readouterr()
    assert printed.out == f"{output}: 400 pieces, trained on 100% of the text\n"
    assert printed.err == ""
    assert [file.name for file in output.parent.iterdir()] == ["small.model"]


def test_a_vocabulary_that_the_text_cannot_fill_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "short.jsonl", [{"text": "few words"}])
    with pytest.raises(UserError, match=r"--pieces: 5000 do not fit 9 characters of text"):
        train([file], pieces=5000)
    with pytest.raises(UserError, match=r"--pieces: 100 do not fit"):
        train([file], pieces=100)  # less than the 256 bytes


def test_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "good"}\n{"other": 1}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2: has no text or inputs and targets"):
        train([file, tmp_path / "missing.jsonl"], pieces=300)
