"""Training a tokenizer: exact size, determinism, and errors that name the line."""

from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.config.errors import UserError
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.data.tokenizers.training import MODEL_TYPES, train
from tests.unit.data.text_files import PIECES, docstrings, write_jsonl


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_equal_files_give_equal_models_of_exactly_the_size(folder: Path, model_type: str) -> None:
    files = [folder / "text.jsonl", folder / "other.jsonl"]
    models = [train(files, pieces=PIECES, model_type=model_type)[0] for _ in range(2)]
    assert models[0] == models[1]
    assert Tokenizer(models[0]).num_pieces == PIECES


def test_training_learns_the_text(tokenizer: Tokenizer) -> None:
    text = docstrings()[0][1]
    assert len(tokenizer.encode(text)) < 0.5 * len(text.encode())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_no_space_is_added_and_every_newline_is_a_token(folder: Path, model_type: str) -> None:
    tokenizer = Tokenizer(train([folder / "text.jsonl"], pieces=400, model_type=model_type)[0])
    pieces = [tokenizer.piece_bytes(token) for token in tokenizer.encode("the\n\n    the\n")]
    assert b"".join(pieces) == b"the\n\n    the\n"
    assert pieces.count(b"\n") == 3


def test_a_large_text_is_sampled_from_every_file(folder: Path) -> None:
    files = [folder / "text.jsonl", folder / "other.jsonl"]
    model, share = train(files, pieces=400, sample_characters=10_000)
    assert 0 < share < 0.5
    assert model != train(files, pieces=400)[0]
    chinese = "今天读了"
    assert len(Tokenizer(model).encode(chinese)) < len(chinese.encode())


def test_the_text_may_stand_in_another_field(folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text((folder / "text.jsonl").read_text().replace('{"text":', '{"content":'))
    assert train([renamed], pieces=400, text_field="content") == train([folder / "text.jsonl"], pieces=400)


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


def test_no_text_and_no_number_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl: no text in it; name files with text to learn from"):
        train([tmp_path / "empty.jsonl"], pieces=300)
    for pieces in ("abc", "0", "3.5"):
        with pytest.raises(SystemExit):
            main(["tokenizer", "train", "a.txt", "--output", "o", "--pieces", pieces])
        assert f"--pieces: {pieces} is no whole number from 1 on" in capsys.readouterr().err
