"""Writing a split of a prepared corpus: tokens, index and origins, in bounded memory for any number of documents."""

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.indexed_writer import IndexedDatasetWriter
from glm130b.data.corpus.manifest import Kind, Split, SplitManifest
from glm130b.data.corpus.origins import RECORD, OriginArray
from glm130b.durable import DurableFile

SEQUENCES_PER_DOCUMENT: dict[Kind, int] = {"text": 1, "instructions": 2}
"""A text is one sequence that ends in [eod]; an instruction is a prompt and an answer, without one."""


class CorpusWriter:
    """Writes ``<split>.bin``, ``<split>.idx`` and ``<split>.origins`` into a folder that exists.

    When its context ends without an error, the three are whole on disk and ``summary`` describes them; after an
    error the folder holds unfinished files, for the caller to remove.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with CorpusWriter(Path(folder), split="train", kind="text", vocab_size=100) as writer:
    ...         writer.add(np.array([5, 6, 9, 7, 9]), lengths=np.array([3, 2]), origins=np.zeros(2, RECORD))
    ...     writer.summary.documents, writer.summary.tokens, sorted(writer.summary.files)
    (2, 5, ['train.bin', 'train.idx', 'train.origins'])
    """

    summary: SplitManifest
    """What was written, for the manifest; there once the context has ended."""

    def __init__(self, folder: Path, *, split: Split, kind: Kind, vocab_size: int) -> None:
        """Two bytes a token where the vocabulary allows it, else four."""
        self._dataset = IndexedDatasetWriter(
            folder / split, vocab_size=vocab_size, sequences_per_document=SEQUENCES_PER_DOCUMENT[kind]
        )
        self._origins = DurableFile(folder / f"{split}.origins")

    def add(self, tokens: NDArray[np.integer], *, lengths: Int64Array, origins: OriginArray) -> None:
        """Append any number of whole documents.

        ``tokens`` (any integers, [sum of lengths]) lie one document after the other; ``lengths`` has each sequence's
        number of tokens (int64, one for each text; prompt and answer in turn for instructions); ``origins`` one record
        for each document. Raises ValueError if these do not fit together or an id is outside the vocabulary.
        """
        if len(origins) * self._dataset.sequences_per_document != len(lengths) or origins.dtype != RECORD:
            raise ValueError(f"{len(origins)} origins of {origins.dtype} for {len(lengths)} sequences")
        self._dataset.add(tokens, lengths)
        self._origins.write(np.ascontiguousarray(origins).data)

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._dataset.abandon()
            self._origins.abandon()
            return
        files = {**self._dataset.close(), self._origins.path.name: self._origins.close()}
        self.summary = SplitManifest(
            documents=self._dataset.num_documents, tokens=self._dataset.num_tokens, files=files
        )
