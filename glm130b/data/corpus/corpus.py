"""The one door to Megatron-core's indexed datasets: tokens on disk, read through a memory map.

Importing Megatron-core takes seconds; what reads no corpus should not import this module.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from glm130b.config.errors import UserError
from glm130b.data.manifest import Manifest, SplitManifest
from glm130b.data.row import Int64Array

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about optional GPU packages, which reading tokens does not need
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder


class Corpus:
    """One split of a prepared folder: a stream of text tokens, or pairs of prompt and answer."""

    def __init__(
        self,
        folder: Path,
        *,
        split: Literal["train", "validation"],
        kind: Literal["text", "instructions"],
        tokenizer: str,
    ) -> None:
        """Open a split; ``tokenizer`` is the fingerprint of the one in use. Raises UserError with all problems."""
        manifest = Manifest.read(folder)
        again = "run `glm130b prepare` again"
        problems = []
        if manifest.inputs.kind != kind:
            problems.append(
                f"{folder}: holds {manifest.inputs.kind}, not {kind}; name it under data.{manifest.inputs.kind}"
            )
        if manifest.inputs.tokenizer != tokenizer:
            problems.append(f"{folder}: was prepared with another tokenizer; {again}, or name that tokenizer")
        if damaged := manifest.damaged_files(folder):
            problems.append(f"{folder}: {', '.join(damaged)} missing or not of the size in the manifest; {again}")
        if not manifest.splits[split].documents:
            problems.append(f"{folder}: has no {split} documents; {again} with more text or another --validation-share")
        if problems:
            raise UserError(problems)
        self.num_tokens = manifest.splits[split].tokens
        self._dataset = IndexedDataset(str(folder / split))

    def read(self, start: int, length: int) -> Int64Array:
        """Tokens ``start .. start + length`` of the stream of all documents, each closed by [eod]; int64 [length].

        Documents lie on disk one after the other, so this is one slice of the file, however many documents it spans.
        """
        if not 0 <= start <= start + length <= self.num_tokens:
            raise IndexError(f"tokens {start} .. {start + length} of a corpus of {self.num_tokens}")
        dtype = self._dataset.index.dtype
        tokens = self._dataset.bin_reader.read(dtype=dtype, count=length, offset=start * DType.size(dtype))
        return tokens.astype(np.int64)

    @property
    def num_pairs(self) -> int:
        """Pairs of prompt and answer, of instructions."""
        return len(self._dataset) // 2

    def pair(self, index: int) -> tuple[Int64Array, Int64Array]:
        """Tokens of one prompt and its answer; int64."""
        prompt, answer = self._dataset[2 * index : 2 * index + 2]
        return prompt.astype(np.int64), answer.astype(np.int64)

    def pair_lengths(self) -> tuple[Int64Array, Int64Array]:
        """Tokens of every prompt and of every answer; int64 [num_pairs] each."""
        lengths = self._dataset.sequence_lengths.astype(np.int64)
        return lengths[0::2], lengths[1::2]


class CorpusWriter:
    """Writes one split: ``<split>.bin`` and, when its context ends, ``<split>.idx``."""

    def __init__(self, folder: Path, *, split: str, vocab_size: int) -> None:
        self._bin, self._idx = folder / f"{split}.bin", folder / f"{split}.idx"
        # Two bytes a token where the vocabulary allows it, else four.
        self._builder = IndexedDatasetBuilder(str(self._bin), dtype=DType.optimal_dtype(vocab_size))
        self._documents = self._tokens = 0

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._builder.finalize(str(self._idx))

    def add(self, sequences: Sequence[Sequence[int]]) -> None:
        """Append one document of one or more sequences."""
        lengths = [len(sequence) for sequence in sequences]
        self._builder.add_document(np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences]), lengths)
        self._documents += 1
        self._tokens += sum(lengths)

    def summary(self) -> SplitManifest:
        """What has been written, for the manifest."""
        sizes = {file.name: file.stat().st_size for file in (self._bin, self._idx)}
        return SplitManifest(documents=self._documents, tokens=self._tokens, file_bytes=sizes)
