"""``glm130b tokenizer train`` and ``show``: what they write and print."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.tokenizers import command
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.tokenizers import vocabularies


def call(*words: str | Path) -> int:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_train_writes_the_file_and_one_line(
    model_type: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "small.model"
    words = ("train", folder / "text.jsonl", "--output", output, "--pieces", "400", "--model-type", model_type)
    assert call(*words) == 0
    printed = capfd.readouterr()
    assert printed.out == f"{output}: 400 pieces, trained on 100% of the text\n"
    assert printed.err == ""
    assert [file.name for file in output.parent.iterdir()] == ["small.model"]
    assert Tokenizer.load(output).num_pieces == 400


def test_model_types_give_different_models(folder: Path, tmp_path: Path) -> None:
    for model_type in ("bpe", "unigram"):
        output = tmp_path / model_type
        call("train", folder / "text.jsonl", "--output", output, "--pieces", "400", "--model-type", model_type)
    assert Tokenizer.load(tmp_path / "bpe").fingerprint != Tokenizer.load(tmp_path / "unigram").fingerprint


def test_show_describes_the_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(vocabularies.byte_level(special=("<eod>",)))
    tokenizer = Tokenizer.load(file)
    assert call("show", file) == 0
    kind, pieces, vocabulary, special, fingerprint = capsys.readouterr().out.splitlines()
    assert kind == "kind         Hugging Face tokenizer.json"
    assert pieces == f"pieces       {tokenizer.num_pieces:,}"
    assert vocabulary == f"vocabulary   {tokenizer.vocab_size:,} ids"
    assert special.startswith(f"special      [MASK] {tokenizer.special.mask}, ")
    assert "<eod> 1, " in special
    assert fingerprint == f"fingerprint  {tokenizer.fingerprint}"


def test_show_cuts_a_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ice_text.model"
    file.write_bytes(vocabularies.icetk_like())
    assert call("show", file, ",\n[MASK]é") == 0
    _, shown = capsys.readouterr().out.split("\n\n")
    assert shown.splitlines() == [
        "6 tokens",
        "   20005  ' '",
        "   20006  ','",
        r"   20004  '\n'",
        "  150000  '[MASK]'",
        "  150283  c3",
        "  150257  a9",
    ]


def test_show_says_when_a_text_does_not_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "nfkc.model"
    file.write_bytes(vocabularies.sentence_pieces(model_type="unigram"))
    call("show", file, "Ｄo")
    assert capsys.readouterr().out.endswith("these tokens give back another text: 'Do'\n")


def test_a_foreign_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        call("show", tmp_path / "missing")
