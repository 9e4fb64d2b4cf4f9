"""From files to a corpus: the same bytes whatever the workers, the format and the accidents."""

import gzip
import json
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from glm130b.config.errors import UserError
from glm130b.data.corpus.corpus import Corpus
from glm130b.data.corpus.manifest import Manifest
from glm130b.data.corpus.origins import text_hash
from glm130b.data.preparation import tokenising
from glm130b.data.preparation.inputs import FieldPairs
from glm130b.data.preparation.rendering import PlainPairs
from glm130b.data.preparation.shards import ShardWriter
from glm130b.data.reading.pieces import Reading
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.preparation.requests import contents, prepared, request, texts
from tests.unit.data.text_files import write_jsonl

DOCUMENTS = [f"document {i} says {'so ' * random.Random(i).randrange(60)}" for i in range(300)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "source.jsonl", [{"text": text} for text in DOCUMENTS])


def shards_of(output: Path) -> dict[str, int]:
    """Inode of each finished shard that waits beside the output."""
    return {shard.name: shard.stat().st_ino for shard in (output.parent / f".{output.name}.partial/shards").iterdir()}


def test_the_number_of_workers_changes_nothing(folder: Path, source: Path, tmp_path: Path) -> None:
    for num_workers in (1, 2, 3):
        prepared(request(folder, [source]), tmp_path / f"out{num_workers}", num_workers=num_workers)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2") == contents(tmp_path / "out3")


def test_the_order_is_that_of_the_input_and_every_line_is_known(
    folder: Path, source: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    second = write_jsonl(tmp_path / "a-second.jsonl", [{"text": f"more {i}"} for i in range(40)])
    prepared(request(folder, [source, second]), tmp_path / "out", num_workers=2)
    originals = [(text, 0, line) for line, text in enumerate(DOCUMENTS, start=1)]
    originals += [(f"more {i}", 1, i + 1) for i in range(40)]
    held_out = set(texts(tmp_path / "out", "validation", tokenizer))
    files = [str(source), str(second)]
    for split in ("train", "validation"):
        corpus = Corpus(tmp_path / "out", split=split, kind="text", tokenizer=tokenizer.fingerprint)  # type: ignore[arg-type]
        expected = [original for original in originals if (original[0] in held_out) == (split == "validation")]
        assert texts(tmp_path / "out", split, tokenizer) == [text for text, *_ in expected]  # type: ignore[arg-type]
        found = corpus.documents(0, corpus.num_tokens)
        assert [(document.file, document.line) for document in found] == [
            (files[file], line) for _, file, line in expected
        ]
        assert [document.text_hash for document in found] == [text_hash(text).hex() for text, *_ in expected]


def write_gzip(file: Path) -> None:
    file.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()))


def write_zstd(file: Path) -> None:
    file.write_bytes(zstandard.compress("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()))


def write_parquet(file: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": DOCUMENTS, "x": DOCUMENTS}), file, row_group_size=17)


def write_text(file: Path) -> None:
    file.write_text("\n".join(DOCUMENTS))


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.jsonl.gz", write_gzip), ("a.jsonl.zst", write_zstd), ("a.parquet", write_parquet), ("a.txt", write_text)],
)
def test_every_format_gives_the_same_corpus(
    folder: Path, source: Path, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    reading = Reading(plain_text="line")
    prepared(request(folder, [source], reading=reading), tmp_path / "expected")
    prepared(request(folder, [tmp_path / name], reading=reading), tmp_path / "out")
    expected, found = contents(tmp_path / "expected"), contents(tmp_path / "out")
    del expected["manifest.json"], found["manifest.json"]
    assert found == expected


def test_small_files_share_shards(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = [tmp_path / f"{i:02d}.txt" for i in range(8)]
    for i, file in enumerate(files):
        file.write_text(f"file {i}" if i != 4 else "long " * 100)
    files.append(write_jsonl(tmp_path / "last.jsonl", [{"text": "one"}, {"text": "two"}]))
    prepared(request(folder, files, validation_share=0.0), tmp_path / "out")
    corpus = Corpus(tmp_path / "out", split="train", kind="text", tokenizer=tokenizer.fingerprint)
    found = [(Path(document.file).name, document.line) for document in corpus.documents(0, corpus.num_tokens)]
    assert found == [*((file.name, 1) for file in files[:8]), ("last.jsonl", 1), ("last.jsonl", 2)]


class Died(Exception):
    pass


@pytest.mark.parametrize("at", [0, 4])
def test_a_run_that_died_goes_on_with_the_shards_it_has(
    folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    prepared(request(folder, [source]), tmp_path / "expected")
    made: list[str] = []
    close = ShardWriter.__exit__

    def dies(self: ShardWriter, *error: Any) -> None:
        close(self, *error)
        if len(made) == at:
            raise Died
        made.append(self._folder.name)

    monkeypatch.setattr(ShardWriter, "__exit__", dies)
    with pytest.raises(Died):
        prepared(request(folder, [source]), tmp_path / "out")
    before = shards_of(tmp_path / "out")
    assert len(before) == at + 1  # it died after the rename
    (tmp_path / ".out.partial/shards/0123.99.working").mkdir()
    at = -1
    prepared(request(folder, [source]), tmp_path / "out")
    assert not set(made[len(before) - 1 :]) & set(before)
    expected, found = contents(tmp_path / "expected"), contents(tmp_path / "out")
    assert found == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "source.jsonl"]


def test_a_changed_file_has_only_its_own_shards_made_again(
    folder: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": f"other {i}"} for i in range(100)] + [{"text": ""}])
    with pytest.raises(UserError):
        prepared(request(folder, [other, source]), tmp_path / "out")
    before = shards_of(tmp_path / "out")
    write_jsonl(other, [{"text": f"other {i}"} for i in range(100)] + [{"text": ""}] * 2)
    with pytest.raises(UserError):
        prepared(request(folder, [other, source]), tmp_path / "out")
    kept = shards_of(tmp_path / "out")
    assert len(kept) == len(before)  # the old one is removed
    assert len(kept.items() & before.items()) == len(kept) - 1
    write_jsonl(other, [{"text": f"other {i}"} for i in range(100)] + [{"text": "mended"}])
    read: set[str] = set()
    reader = tokenising.PieceReader

    def spy(piece: Any, *arguments: Any, **keywords: Any) -> Any:
        read.add(piece.file.name)
        return reader(piece, *arguments, **keywords)

    monkeypatch.setattr(tokenising, "PieceReader", spy)
    prepared(request(folder, [other, source]), tmp_path / "out")
    assert read == {"other.jsonl"}
    prepared(request(folder, [other, source]), tmp_path / "expected")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_a_finished_corpus_is_left_alone_and_options_that_spare_the_text_are_not_the_shards_concern(
    folder: Path, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert prepared(request(folder, [source]), out)
    assert prepared(request(folder, [source]), out) is None
    assert prepared(request(folder, [source], drop_duplicates=True), out)
    assert prepared(request(folder, [source], validation_share=0.3), out)
    os.utime(source, ns=(1, 1))
    assert prepared(request(folder, [source], validation_share=0.3), out)


def test_a_file_that_cannot_be_read_to_its_end_is_named_with_all_others(
    folder: Path, source: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_gzip(tmp_path / f"{name}.jsonl.gz")
        (tmp_path / f"{name}.jsonl.gz").write_bytes((tmp_path / f"{name}.jsonl.gz").read_bytes()[:-9])
    files = [tmp_path / "a.jsonl.gz", source, tmp_path / "b.jsonl.gz"]
    for num_workers in (1, 2):
        with pytest.raises(UserError) as error:
            prepared(request(folder, files), tmp_path / "out", num_workers=num_workers)
        assert [problem.partition(",")[0] for problem in error.value.problems] == [str(files[0]), str(files[2])]
        assert "is damaged or incomplete" in error.value.problems[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk_ends_the_run_and_room_lets_it_go_on(
    folder: Path, source: Path, tmp_path: Path, num_workers: int
) -> None:
    prepared(request(folder, [source]), tmp_path / "expected")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes of a file; the workers inherit it
    try:
        with pytest.raises(OSError, match="too large"):
            prepared(request(folder, [source]), tmp_path / "out", num_workers=num_workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert all(name.endswith(".working") for name in shards_of(tmp_path / "out"))
    prepared(request(folder, [source]), tmp_path / "out", num_workers=num_workers)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def test_instructions_are_pairs_and_fields_may_have_other_names(
    folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [{"inputs": f"Say [MASK] {i}.", "targets": f"word {i} [MASK]"} for i in range(60)]
    renamed = [{"q": row["inputs"], "a": row["targets"]} for row in rows]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    other = write_jsonl(tmp_path / "b.jsonl", renamed)
    prepared(request(folder, [file], renderer=PlainPairs()), tmp_path / "out", num_workers=2)
    prepared(request(folder, [other], renderer=FieldPairs("q", "a")), tmp_path / "renamed")
    assert (tmp_path / "out" / "train.bin").read_bytes() == (tmp_path / "renamed" / "train.bin").read_bytes()
    pairs = Corpus(tmp_path / "out", split="train", kind="instructions", tokenizer=tokenizer.fingerprint)
    assert 30 < pairs.num_pairs < 60
    prompt, answer = pairs.pair(0)
    assert tokenizer.decode(prompt.tolist()) == rows[0]["inputs"]
    assert (prompt == tokenizer.special.mask).sum() == 1
    assert not (answer == tokenizer.special.mask).any()


def test_the_manifest_counts_documents_and_rejects_of_each_file(folder: Path, source: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "good"}, {"text": ""}, {"text": 3}, {"words": "none"}, {"text": "good"}]
    bad = write_jsonl(tmp_path / "bad.jsonl", rows)
    manifest = prepared(request(folder, [source, bad], drop_duplicates=True), tmp_path / "out", reject_share=0.1)
    assert manifest == Manifest.read(tmp_path / "out")
    assert [(counts.documents, counts.rejected) for counts in manifest.sources] == [(300, 0), (1, 3)]
    assert manifest.rejected == {"empty document": 1, "missing field": 1, "wrong type": 1}
    assert manifest.duplicates == 1
    assert sum(split.documents for split in manifest.splits.values()) == 301
