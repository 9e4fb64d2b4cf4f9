"""From JSON lines to a corpus on disk: complete, disjoint, never half-written."""

import json
from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.data import corpus as corpus_module
from glm130b.data.corpus import Corpus
from glm130b.data.manifest import Manifest
from glm130b.data.tokenizer import Tokenizer
from tests.unit.data.text_files import docstrings, write_jsonl


def prepare(folder: Path, output: Path, *arguments: str) -> int:
    return main(["prepare", "--tokenizer", str(folder / "tokenizer.model"), "--output", str(output), *arguments])


def texts(folder: Path, split: str, tokenizer: Tokenizer) -> list[str]:
    """The documents of a split, decoded."""
    documents = Manifest.read(folder).splits[split].documents
    if not documents:
        return []
    corpus = Corpus(folder, split=split, kind="text", tokenizer=tokenizer.fingerprint)  # type: ignore[arg-type]
    return tokenizer.decode(corpus.read(0, corpus.num_tokens).tolist()).split("<eod>")[:-1]


def test_every_document_is_on_one_side_in_order(folder: Path, tokenizer: Tokenizer) -> None:
    train, held_out = (texts(folder / "text", split, tokenizer) for split in ("train", "validation"))
    originals = [text for _, text in docstrings()]
    assert sorted(train + held_out) == sorted(originals)
    assert not set(train) & set(held_out)
    assert train == [text for text in originals if text in set(train)]
    assert 0.1 < len(held_out) / len(originals) < 0.3  # asked for: 0.2


def test_equal_texts_are_on_the_same_side_whatever_the_file(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [{"text": f"sentence {i % 50}"} for i in range(500)]
    assert (
        prepare(folder, tmp_path / "out", str(write_jsonl(tmp_path / "a.jsonl", rows)), "--validation-share", "0.3")
        == 0
    )
    train, held_out = (texts(tmp_path / "out", split, tokenizer) for split in ("train", "validation"))
    assert len(train) + len(held_out) == 500
    assert held_out
    assert not set(train) & set(held_out)


def test_instructions_are_pairs_with_blanks_in_prompts_only(folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    row = {"inputs": "Paris is the [MASK] of France.", "targets": "capital [MASK]"}
    file = write_jsonl(tmp_path / "pair.jsonl", [row])
    assert prepare(folder, tmp_path / "out", str(file), "--instructions", "--validation-share", "0") == 0
    pairs = Corpus(tmp_path / "out", split="train", kind="instructions", tokenizer=tokenizer.fingerprint)
    assert pairs.num_pairs == 1
    prompt, answer = pairs.pair(0)
    assert tokenizer.decode(prompt.tolist()) == row["inputs"]
    assert tokenizer.decode(answer.tolist()) == row["targets"]
    assert (prompt == tokenizer.special.mask).sum() == 1
    assert (answer < tokenizer.num_pieces).all()


def test_the_manifest_counts_what_is_there(folder: Path, tokenizer: Tokenizer) -> None:
    manifest = Manifest.read(folder / "text")
    assert manifest.inputs.tokenizer == tokenizer.fingerprint
    assert [file.path for file in manifest.inputs.files] == [str(folder / "text.jsonl")]
    num_tokens = sum(len(tokenizer.encode(text)) + 1 for _, text in docstrings())
    assert sum(split.tokens for split in manifest.splits.values()) == num_tokens
    assert sum(split.documents for split in manifest.splits.values()) == len(docstrings())
    sizes = {file.name: file.stat().st_size for file in (folder / "text").iterdir() if file.suffix in (".bin", ".idx")}
    assert sizes == {name: size for split in manifest.splits.values() for name, size in split.file_bytes.items()}
    assert sizes["train.bin"] == 2 * manifest.splits["train"].tokens  # a small vocabulary takes two bytes a token


def test_a_finished_folder_is_left_alone_until_its_inputs_change(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    out = tmp_path / "out"
    assert prepare(folder, out, str(file)) == 0
    made = (out / "train.bin").stat().st_mtime_ns
    capsys.readouterr()
    assert prepare(folder, out, str(file)) == 0
    assert capsys.readouterr().out == f"{out}: up to date\n"
    assert (out / "train.bin").stat().st_mtime_ns == made

    assert prepare(folder, out, str(file), "--validation-share", "0.5") == 0
    write_jsonl(file, [{"text": "three"}])
    assert prepare(folder, out, str(file), "--validation-share", "0") == 0
    tokens = Manifest.read(out).splits["train"].tokens
    report = f"{out}: train 1 documents {tokens} tokens, validation 0 documents 0 tokens\n"
    assert capsys.readouterr().out.endswith(report)
    (out / "train.bin").write_bytes(b"")  # damaged: made again
    assert prepare(folder, out, str(file), "--validation-share", "0") == 0
    assert (out / "train.bin").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out"]


def test_bad_lines_are_all_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"text": "fine"}\n{"text": ""}\nnot json\n')
    out = tmp_path / "out"
    assert prepare(folder, out, str(file)) == 2
    problems = capsys.readouterr().err.splitlines()
    assert len(problems) == 2
    assert f"{file}, line 2: text is not" in problems[0]
    assert f"{file}, line 3: is not JSON" in problems[1]
    assert prepare(folder, out, str(tmp_path / "none.jsonl")) == 2
    (tmp_path / "empty.jsonl").write_text("")
    assert prepare(folder, out, str(tmp_path / "empty.jsonl")) == 2
    assert "no document in it" in capsys.readouterr().err
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_run_that_dies_leaves_the_old_corpus(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert (
        prepare(folder, out, str(write_jsonl(tmp_path / "a.jsonl", [{"text": "old"}])), "--validation-share", "0") == 0
    )
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def dies(self: object, sequences: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus_module.CorpusWriter, "add", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, out, str(write_jsonl(tmp_path / "b.jsonl", [{"text": "new"}])))
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert not list(tmp_path.glob(".out*"))


def test_left_overs_of_a_killed_run_do_not_matter(folder: Path, tmp_path: Path) -> None:
    for state in ("partial", "replaced"):
        (tmp_path / f".out.{state}").mkdir()
        (tmp_path / f".out.{state}" / "train.bin").write_text("half")
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "words"}])
    assert prepare(folder, tmp_path / "out", str(file)) == 0
    assert not list(tmp_path.glob(".out*"))


def test_a_folder_with_something_else_in_it_is_not_touched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    assert prepare(folder, precious.parent, str(write_jsonl(tmp_path / "a.jsonl", [{"text": "words"}]))) == 2
    assert "holds something that is no prepared corpus" in capsys.readouterr().err
    assert precious.read_text() == "years"


@pytest.mark.parametrize("share", ["1", "-0.1", "much"])
def test_a_share_that_is_none_is_refused(folder: Path, tmp_path: Path, share: str) -> None:
    with pytest.raises(SystemExit):
        prepare(folder, tmp_path / "out", "a.jsonl", f"--validation-share={share}")


def test_the_manifest_is_plain_json(folder: Path) -> None:
    written = json.loads((folder / "pairs" / "manifest.json").read_text())
    assert written["inputs"]["kind"] == "instructions"
    assert set(written["splits"]) == {"train", "validation"}
