"""Small corpora on disk, as ``glm130b prepare`` lays them out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glm130b.data.corpus.manifest import SPLITS, Inputs, Kind, Manifest, SourceCounts, SourceFile
from glm130b.data.corpus.origins import origin_records, text_hash
from glm130b.data.corpus.writer import CorpusWriter

EOD = 9
TOKENIZER = "t"
VOCAB_SIZE = 100

Documents = Sequence[Sequence[Sequence[int]]]


def write_corpus(
    folder: Path, train: Documents, validation: Documents = (), *, kind: Kind = "text", vocab_size: int = VOCAB_SIZE
) -> Path:
    """A prepared folder; document i of both splits together is line i + 1 of a.jsonl, and ``str(i)`` is its text."""
    folder.mkdir()
    splits, line = {}, 1
    for split, documents in zip(SPLITS, (train, validation), strict=True):
        with CorpusWriter(folder, split=split, kind=kind, vocab_size=vocab_size) as writer:
            for document in documents:
                writer.add(
                    np.concatenate([np.asarray(sequence, np.int64) for sequence in document]),
                    lengths=np.array([len(sequence) for sequence in document]),
                    origins=origin_records(text_hashes=[text_hash(str(line - 1))], lines=[line], files=0),
                )
                line += 1
        splits[split] = writer.summary
    Manifest(inputs=inputs(kind=kind, vocab_size=vocab_size), splits=splits, sources=(counts(line - 1),)).write(folder)
    return folder


def counts(documents: int) -> SourceCounts:
    return SourceCounts(documents=documents, rejected=0)


def inputs(*, kind: Kind = "text", vocab_size: int = VOCAB_SIZE) -> Inputs:
    """What such a corpus is made of."""
    files = (SourceFile(path="a.jsonl", bytes=1, mtime_ns=2),)
    return Inputs(
        kind=kind, tokenizer=TOKENIZER, vocab_size=vocab_size, eod=EOD, options={"validation_share": 0.5}, files=files
    )


def texts(*documents: Sequence[int]) -> list[list[Sequence[int]]]:
    """Documents of one sequence each."""
    return [[document] for document in documents]


def random_texts(num_documents: int, *, seed: int = 0) -> list[list[list[int]]]:
    """Documents of 1 to 40 tokens below 100, each closed by EOD."""
    rng = np.random.default_rng(seed)
    return [[[*rng.integers(10, 100, rng.integers(40)).tolist(), EOD]] for _ in range(num_documents)]
