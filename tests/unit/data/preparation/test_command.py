"""From JSON lines to a corpus on disk: complete, disjoint, never half-written."""

import errno
import json
import os
from pathlib import Path

import pytest

from glm130b.cli import main
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.corpus.manifest import SPLITS, Manifest
from glm130b.data.corpus.writer import CorpusWriter
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.preparation.requests import texts
from tests.unit.data.text_files import docstrings, write_jsonl
from tests.unit.data.tokenizers.vocabularies import sentence_pieces

TEMPLATES = """
templates:
  11111111-1111-1111-1111-111111111111: !Template
    answer_choices: null
    id: 11111111-1111-1111-1111-111111111111
    jinja: "Question: {{question}} ||| {{answer}}"
    metadata: !TemplateMetadata {}
    name: plain
    reference: ''
"""


def prepare(folder: Path, output: Path, *arguments: str) -> int:
    return main(["prepare", "--tokenizer", str(folder / "tokenizer.model"), "--output", str(output), *arguments])


def test_every_document_is_on_one_side_in_order(folder: Path, tokenizer: Tokenizer) -> None:
    train, held_out = (texts(folder / "text", split, tokenizer) for split in SPLITS)
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
    train, held_out = (texts(tmp_path / "out", split, tokenizer) for split in SPLITS)
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
    sizes = {file.name: file.stat().st_size for file in (folder / "text").iterdir() if file.name != "manifest.json"}
    assert sizes == {name: file.bytes for split in manifest.splits.values() for name, file in split.files.items()}
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
    summary, *problems = capsys.readouterr().err.splitlines()
    assert "2 of 3 documents are bad (1 broken JSON, 1 empty document)" in summary
    assert len(problems) == 2
    assert f"{file}, line 2: has a text with nothing in it" in problems[0]
    assert f"{file}, line 3: is not JSON" in problems[1]
    rejects = tmp_path / "out.rejected.jsonl"
    assert [json.loads(row)["line"] for row in rejects.read_text().splitlines()] == [2, 3]
    assert prepare(folder, out, str(file), "--rejects", str(tmp_path / "mine.jsonl")) == 2
    assert (tmp_path / "mine.jsonl").read_text() == rejects.read_text()
    assert prepare(folder, out, str(tmp_path / "none.jsonl")) == 2
    (tmp_path / "empty.jsonl").write_text("")
    assert prepare(folder, out, str(tmp_path / "empty.jsonl")) == 2
    assert "no document in it" in capsys.readouterr().err
    assert not out.exists()


def test_a_run_that_dies_leaves_the_old_corpus(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert (
        prepare(folder, out, str(write_jsonl(tmp_path / "a.jsonl", [{"text": "old"}])), "--validation-share", "0") == 0
    )
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def dies(self: object, *arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    new = write_jsonl(tmp_path / "b.jsonl", [{"text": "new"}])
    with monkeypatch.context() as patch:
        patch.setattr(CorpusWriter, "add", dies)
        assert prepare(folder, out, str(new)) == 130
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    out.rename(tmp_path / ".out.replaced")  # as if it had been killed between the two renames at the end
    assert prepare(folder, out, str(tmp_path / "a.jsonl"), "--validation-share", "0") == 0
    assert (out / "train.bin").read_bytes() == before["train.bin"]
    assert prepare(folder, out, str(new)) == 0
    assert not list(tmp_path.glob(".out*"))


def test_an_attempt_that_failed_leaves_nothing_when_the_old_inputs_are_back(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, good = tmp_path / "out", write_jsonl(tmp_path / "a.jsonl", [{"text": "words"}])
    assert prepare(folder, out, str(good)) == 0
    bad = write_jsonl(tmp_path / "b.jsonl", [{"text": ""}])
    assert prepare(folder, out, str(good), str(bad)) == 2
    assert (tmp_path / ".out.partial").exists()
    assert prepare(folder, out, str(good)) == 0
    assert capsys.readouterr().out.endswith(f"{out}: up to date\n")
    assert not list(tmp_path.glob(".out*"))


def test_files_of_unknown_suffix_are_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "words"}])
    for name in "abcd":
        (tmp_path / "in" / f"{name}.csv").touch()
    assert prepare(folder, tmp_path / "out", str(tmp_path / "in")) == 0
    shown = ", ".join(str(tmp_path / "in" / f"{name}.csv") for name in "abc")
    notice = f"left out 4 files of unknown suffix ({shown}, ...); known are .jsonl"
    assert notice in capsys.readouterr().err
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"inputs": "question", "targets": "answer"}])
    (tmp_path / "mip.yaml").write_text(f"tasks: {{one: {{datasets: {{a: {{path: {tmp_path / 'in'}}}}}}}}}")
    assert prepare(folder, tmp_path / "pairs", "--mip", str(tmp_path / "mip.yaml")) == 0
    assert notice in capsys.readouterr().err


def test_text_that_the_tokenizer_cannot_write_is_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentence_pieces(model_type="bpe", add_dummy_prefix=False))  # no bytes
    rows = [{"text": text} for text in ("plain text", "𐐀 twice 𐐀", "plain again", "𐐀")]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    assert prepare(tmp_path, tmp_path / "out", str(file), "--validation-share", "0.3") == 0
    assert Manifest.read(tmp_path / "out").unknown == 2
    assert "2 documents hold text that the tokenizer does not know" in capsys.readouterr().err
    write_jsonl(file, rows[::2])
    assert prepare(tmp_path, tmp_path / "out", str(file)) == 0
    assert Manifest.read(tmp_path / "out").unknown == 0
    assert "does not know" not in capsys.readouterr().err


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


@pytest.mark.parametrize("share", ["1", "-0.1", "much", "nan"])
def test_a_share_that_is_none_is_refused(
    folder: Path, tmp_path: Path, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        prepare(folder, tmp_path / "out", "a.jsonl", f"--validation-share={share}")
    assert f"{share} is no number from 0 up to, but without, 1" in capsys.readouterr().err


def test_the_manifest_is_plain_json(folder: Path) -> None:
    written = json.loads((folder / "pairs" / "manifest.json").read_text())
    assert written["inputs"]["kind"] == "instructions"
    assert set(written["splits"]) == {"train", "validation"}


def test_fields_formats_and_plain_text_are_options(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"body": "one"}, {"body": "two"}])
    (tmp_path / "in" / "deep" / "a.txt").write_text("three\n\nfour\nfive\n")
    words = [str(tmp_path / "in"), "--text-field", "body", "--plain-text", "paragraph", "--validation-share", "0"]
    assert prepare(folder, tmp_path / "out", *words) == 0
    assert texts(tmp_path / "out", "train", tokenizer) == ["one", "two", "three", "four\nfive"]
    write_jsonl(tmp_path / "c.jsonl", [{"q": "who?", "targets": "me"}])
    words = [str(tmp_path / "*.jsonl"), "--inputs-field", "q", "--validation-share", "0", "--workers", "2"]
    assert prepare(folder, tmp_path / "pairs", *words) == 0
    assert Manifest.read(tmp_path / "pairs").inputs.kind == "instructions"


def test_a_document_that_is_too_long_is_rejected_unless_it_is_allowed(folder: Path, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "long " * 250_000}, {"text": "short"}])
    words = [str(file), "--validation-share", "0"]
    assert prepare(folder, tmp_path / "out", *words, "--longest-document", "1") == 2
    assert prepare(folder, tmp_path / "out", *words) == 0


def test_many_datasets_come_from_one_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: Tokenizer
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"inputs": f"question {i}", "targets": "yes"} for i in range(20)])
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": f"order {i}", "output": "done"} for i in range(20)])
    mip = tmp_path / "mip.yaml"
    mip.write_text(
        f"tasks: {{answering: {{cap: 5, datasets: {{a: {{path: {tmp_path / 'a.jsonl'}}}, none: {{path: null}}}}}}, "
        f"orders: {{datasets: {{b: {{path: {tmp_path / 'b.jsonl'}, weight: 2.0}}}}}}}}"
    )
    assert prepare(folder, tmp_path / "out", "--mip", str(mip), "--validation-share", "0") == 0
    printed = capsys.readouterr()
    assert "answering/none" in printed.err
    assert "15 over a cap" in printed.out
    pairs = Corpus(tmp_path / "out", split="train", kind="instructions", tokenizer=tokenizer.fingerprint)
    assert pairs.num_pairs == 5 + 2 * 20
    assert prepare(folder, tmp_path / "other", "--mip", str(mip), str(tmp_path / "a.jsonl")) == 2
    assert prepare(folder, tmp_path / "other") == 2
    assert "no files; name some" in capsys.readouterr().err


def test_a_disk_that_is_full_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def is_full(self: object, *arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CorpusWriter, "add", is_full)
    assert prepare(folder, tmp_path / "out", str(write_jsonl(tmp_path / "a.jsonl", [{"text": "words"}]))) == 2
    error = capsys.readouterr().err
    assert f"--output {tmp_path / 'out'}: " in error
    assert "No space left on device" in error
    assert "the same command goes on" in error


def test_templates_make_pairs_of_records(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "templates.yaml").write_text(TEMPLATES)
    records = write_jsonl(tmp_path / "records.jsonl", [{"question": "Why?", "answer": "So."}])
    output = tmp_path / "qa"
    share = ["--validation-share", "0"]
    assert prepare(folder, output, "--templates", str(tmp_path / "templates.yaml"), *share, str(records)) == 0
    corpus = Corpus(output, split="train", kind="instructions", tokenizer=tokenizer.fingerprint)
    assert [tokenizer.decode(part) for part in corpus.pair(0)] == ["Question: Why?", "So."]


def test_templates_and_fields_exclude_each_other(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder, tmp_path / "qa", "--templates", "t.yaml", "--inputs-field", "q", "records.jsonl") == 2
    assert "--templates t.yaml: name the fields themselves" in capsys.readouterr().err
