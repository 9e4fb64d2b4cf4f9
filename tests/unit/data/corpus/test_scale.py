"""A corpus of 10^12 tokens opens at once and is read in place: only the pages that an answer needs are touched.

The files are sparse. Real numbers stand wherever a search in the index looks for the places that are asked for, so the
answers are checked too; a search that looked elsewhere would find zeros and go astray.
"""

import json
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glm130b.data.corpus.indexed_dataset import HEADER, MAGIC, VERSION

NUM_DOCUMENTS = 10**8
DOCUMENT_TOKENS = 10**4
TOKEN_BYTES = 4
READ_TOKENS = 2048
NUM_READS = 100

CHILD = """
import json, sys, time
from pathlib import Path
from glm130b.data.corpus.corpus import Corpus

def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

prefix, length, starts = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
before, began = resident_mib(), time.process_time()
corpus = Corpus(prefix, split="train", kind="text", tokenizer="t", vocab_size=150_528)
seconds, opened = time.process_time() - began, resident_mib()
answers = [(corpus.read(s, length).max().item(), corpus.document_starts(s, length).tolist()) for s in starts]
print(json.dumps({
    "tokens": corpus.num_tokens, "seconds": seconds, "open_mib": opened - before, "read_mib": resident_mib() - before,
    "answers": answers, "heavy": sorted({"torch", "megatron"} & set(sys.modules)),
}))
"""


def test_a_trillion_tokens(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = rng.integers(1, int(0.98 * NUM_DOCUMENTS), NUM_READS)
    # A document begins in the middle of every second stretch, the others lie inside one.
    starts = [int(d) * DOCUMENT_TOKENS + (-1024 if i % 2 else 1024) for i, d in enumerate(documents)]
    _write_sparse(tmp_path, starts)
    command = [sys.executable, "-c", CHILD, str(tmp_path / "m"), str(READ_TOKENS), json.dumps(starts)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["tokens"] == int(0.99 * NUM_DOCUMENTS) * DOCUMENT_TOKENS
    assert found["seconds"] < 1
    assert found["open_mib"] < 20
    assert found["read_mib"] < 50
    assert found["heavy"] == []
    for i, (start, (largest, inside)) in enumerate(zip(starts, found["answers"], strict=True)):
        assert largest == i + 1
        assert inside == ([start + 1024] if i % 2 else [])


def _write_sparse(folder: Path, starts: list[int]) -> None:
    """A Megatron dataset of equal documents, with only the numbers that the reads at ``starts`` look at."""
    lengths, documents = HEADER.size, HEADER.size + 12 * NUM_DOCUMENTS
    pointers = lengths + 4 * NUM_DOCUMENTS
    try:
        with (folder / "m.bin").open("wb") as tokens, (folder / "m.idx").open("wb") as index:
            tokens.truncate(NUM_DOCUMENTS * DOCUMENT_TOKENS * TOKEN_BYTES)
            index.truncate(documents + 8 * (NUM_DOCUMENTS + 1))
            for number, start in enumerate(starts):
                tokens.seek(start * TOKEN_BYTES)
                tokens.write(np.full(READ_TOKENS, number + 1, np.int32).tobytes())
            index.write(HEADER.pack(MAGIC, VERSION, 4, NUM_DOCUMENTS, NUM_DOCUMENTS + 1))
            index.seek(pointers - 4)
            index.write(np.int32(DOCUMENT_TOKENS).tobytes())  # of the last document
            for looked_at in _looked_at(starts):
                index.seek(pointers + 8 * looked_at.start)
                index.write(
                    (np.array(looked_at[: NUM_DOCUMENTS - looked_at.start]) * DOCUMENT_TOKENS * TOKEN_BYTES).data
                )
                index.seek(documents + 8 * looked_at.start)
                index.write(np.array(looked_at).data)
    except OSError as error:
        pytest.skip(f"the file system of {folder} takes no sparse file of 4 TB: {error.strerror}")
    if sum((folder / name).stat().st_blocks for name in ("m.bin", "m.idx")) * 512 > 1 << 30:
        pytest.skip(f"the file system of {folder} keeps no sparse files")


def _looked_at(starts: list[int]) -> Iterator[range]:
    """Documents that a binary search for the beginning of each stretch compares with, those around, and the last."""
    seen: list[int] = []

    def looked(document: int) -> int:
        seen.append(document)
        return document * DOCUMENT_TOKENS

    for start in starts:
        found = bisect_left(range(NUM_DOCUMENTS), start + 1, key=looked)
        yield range(max(found - 3000, 0), min(found + 3000, NUM_DOCUMENTS))
    yield from (range(document, document + 1) for document in {*seen, int(0.99 * NUM_DOCUMENTS)})
    yield range(NUM_DOCUMENTS - 1, NUM_DOCUMENTS + 1)
