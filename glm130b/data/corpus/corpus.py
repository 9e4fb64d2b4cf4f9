"""One split of a corpus: a stream of documents, or pairs of prompt and answer, with where each came from."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glm130b.config.errors import UserError
from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.indexed_dataset import IndexedDataset
from glm130b.data.corpus.manifest import Kind, Manifest, Split
from glm130b.data.corpus.origins import Origins

_AGAIN = "run `glm130b prepare` again"


@dataclass(frozen=True)
class Document:
    """One document of a split."""

    index: int
    """Its number in the .idx file, from 0."""
    start: int
    """Its first token in the split's stream."""
    length: int
    """Tokens, with its [eod]; of an instruction, of prompt and answer together."""
    file: str | None
    """The file it was read from; None (as ``line`` and ``text_hash``) in a Megatron dataset, which does not know."""
    line: int | None
    """Line of that file from 1 on; row of a Parquet file, else number of the record."""
    text_hash: str | None
    """32 hex digits, see ``origins.text_hash``."""

    @property
    def end(self) -> int:
        """The first token after it."""
        return self.start + self.length


class Corpus:
    """One split, opened in well under a second whatever its size; can be pickled, and is opened again by its path.

    ``path`` is a folder written by ``glm130b prepare``, or the name that a Megatron ``.bin`` and its ``.idx`` share.
    The latter has no split and no record of its tokenizer: its last ``held_out_share`` of documents, at least one, are
    ``validation``, and an id from ``vocab_size`` on is an error when it is read.
    """

    def __init__(
        self,
        path: Path,
        *,
        split: Split,
        kind: Kind,
        tokenizer: str,
        held_out_share: float = 0.01,
        vocab_size: int | None = None,
    ) -> None:
        """Open a split; ``tokenizer`` is the fingerprint of the one in use. Raises UserError with all problems."""
        self._origins: Origins | None = None
        self._files: tuple[str, ...] = ()
        self._vocab_size = None
        if is_bare(path):
            self._dataset, self._vocab_size = IndexedDataset(path), vocab_size
            self._documents = _split_of(self._dataset, split=split, kind=kind, held_out_share=held_out_share)
        else:
            manifest = _checked_manifest(path, split=split, kind=kind, tokenizer=tokenizer)
            self._dataset, self._origins = IndexedDataset(path / split), Origins(path / f"{split}.origins")
            self._documents = range(self._dataset.num_documents)
            self._files = tuple(file.path for file in manifest.inputs.files)
            part = manifest.splits[split]
            if (self._dataset.num_documents, self._dataset.num_tokens) != (part.documents, part.tokens):
                raise UserError(
                    f"{path}: its {split} split disagrees with its manifest; remove the folder and {_AGAIN}"
                )
        ends = (self._documents.start, self._documents.stop)
        self._first_token, stop = (int(self._dataset.document_starts(end, end + 1)[0]) for end in ends)
        self.num_tokens = stop - self._first_token

    def read(self, start: int, length: int) -> Int64Array:
        """Tokens ``start .. start + length`` of the stream of all documents; int64 [length].

        Documents lie on disk one after the other, so this is one slice of the file, however many documents it spans.
        """
        self._check(start, length)
        tokens = self._dataset.tokens(self._first_token + start, length).astype(np.int64)
        if self._vocab_size is not None and length and not 0 <= tokens.min() <= tokens.max() < self._vocab_size:
            bad = int(np.argmax((tokens < 0) | (tokens >= self._vocab_size)))
            raise UserError(
                f"{self._dataset.bin}: token {self._first_token + start + bad} is id {tokens[bad]}, but the tokenizer "
                f"has {self._vocab_size} ids; name the tokenizer that the corpus was made with"
            )
        return tokens

    def document_starts(self, start: int, length: int) -> Int64Array:
        """Where documents begin inside the stretch, not at its ends; stream offsets, rising; int64.

        From the index, so it does not matter whether an [eod] closes the documents.
        """
        self._check(start, length)
        _, starts = self._documents_inside(start, length)
        if (starts[1:] == starts[:-1]).any():  # a document without a token begins where the next one does
            starts = np.unique(starts)
        return starts - self._first_token

    def documents(self, start: int, length: int) -> list[Document]:
        """The documents that these tokens belong to, in order."""
        self._check(start, length)
        first, starts = self._documents_inside(start, length)
        touched = range(first - 1, first + len(starts)) if length else ()
        return [document for index in touched if (document := self._document(index)).length]

    def find(self, text_hash: str) -> Iterator[Document]:
        """The documents of this split with this text hash (32 hex digits), in order; reads all origins."""
        if self._origins:
            yield from map(self._document, self._origins.find(bytes.fromhex(text_hash)))

    @property
    def num_pairs(self) -> int:
        """Pairs of prompt and answer, of instructions."""
        return len(self._documents)

    def pair(self, index: int) -> tuple[Int64Array, Int64Array]:
        """Tokens of one prompt and its answer; int64."""
        document = self._documents[index]
        prompt, answer = self._dataset.lengths(2 * document, 2 * document + 2).tolist()
        tokens = self.read(self.pair_start(index), prompt + answer)
        return tokens[:prompt], tokens[prompt:]

    def pair_start(self, index: int) -> int:
        """First token of one prompt in the split's stream."""
        document = self._documents[index]
        return int(self._dataset.document_starts(document, document + 1)[0]) - self._first_token

    def pair_lengths(self) -> tuple[Int64Array, Int64Array]:
        """Tokens of every prompt and of every answer; int64 [num_pairs] each."""
        lengths = self._dataset.lengths(2 * self._documents.start, 2 * self._documents.stop)
        return lengths[0::2], lengths[1::2]

    def _check(self, start: int, length: int) -> None:
        if not 0 <= start <= start + length <= self.num_tokens:
            raise IndexError(f"tokens {start} .. {start + length} of a corpus of {self.num_tokens}")

    def _documents_inside(self, start: int, length: int) -> tuple[int, Int64Array]:
        """The first document that begins behind ``start``, and where those before the end begin in the .bin file."""
        first_token = self._first_token + start
        return self._dataset.documents_from(first_token + 1, first_token + length)

    def _document(self, index: int) -> Document:
        start, stop = self._dataset.document_starts(index, index + 2).tolist()
        place = (index, start - self._first_token, stop - start)
        if self._origins is None:
            return Document(*place, None, None, None)
        records = self._origins.read(index, index + 1)
        if not len(records) or records["file"][0] >= len(self._files):
            raise UserError(f"{self._origins.path}: is damaged, record {index} names no file; {_AGAIN}")
        origin = records[0]
        return Document(*place, self._files[origin["file"]], int(origin["line"]), origin["text_hash"].tobytes().hex())


def is_bare(path: Path) -> bool:
    """Whether the path is the common name of a Megatron ``.bin`` and ``.idx``, not a prepared folder."""
    return not path.is_dir() and any(path.with_name(path.name + suffix).exists() for suffix in (".bin", ".idx"))


def _checked_manifest(folder: Path, *, split: Split, kind: Kind, tokenizer: str) -> Manifest:
    """The manifest of a folder that holds what the run expects. Raises UserError with all problems."""
    manifest = Manifest.read(folder)
    problems = []
    if manifest.inputs.kind != kind:
        problems.append(
            f"{folder}: holds {manifest.inputs.kind}, not {kind}; name it under data.{manifest.inputs.kind}"
        )
    if manifest.inputs.tokenizer != tokenizer:
        problems.append(f"{folder}: was prepared with another tokenizer; {_AGAIN}, or name that tokenizer")
    if damaged := manifest.damaged_files(folder):
        problems.append(f"{folder}: {', '.join(damaged)} missing or not of the size in the manifest; {_AGAIN}")
    if not manifest.splits[split].documents:
        problems.append(f"{folder}: has no {split} documents; {_AGAIN} with more text or another --validation-share")
    if problems:
        raise UserError(problems)
    return manifest


def _split_of(dataset: IndexedDataset, *, split: Split, kind: Kind, held_out_share: float) -> range:
    """The documents of a split of a Megatron dataset."""
    problems = []
    if kind == "instructions" and dataset.num_sequences != 2 * dataset.num_documents:
        problems.append(
            f"{dataset.idx}: {dataset.num_sequences} sequences in {dataset.num_documents} documents are no pairs of "
            "prompt and answer; name it under data.text"
        )
    held_out = max(1, round(held_out_share * dataset.num_documents))
    first_held_out = dataset.num_documents - held_out
    if first_held_out < 1:
        problems.append(
            f"{dataset.idx}: {dataset.num_documents} documents are too few to train on some and hold out {held_out}; "
            "write more documents, or a smaller held_out_share"
        )
    if problems:
        raise UserError(problems)
    return range(first_held_out) if split == "train" else range(first_held_out, dataset.num_documents)
