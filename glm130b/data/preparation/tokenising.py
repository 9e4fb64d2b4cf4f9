"""One shard: records in, documents of tokens out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm130b.data.preparation.inputs import Dataset, Request, blake2b
from glm130b.data.preparation.planning import Shard
from glm130b.data.preparation.shards import Documents, ShardWriter, document_dtype
from glm130b.data.reading.documents import texts_of, utf8
from glm130b.data.reading.records import PieceReader
from glm130b.data.reading.rejection import Damaged, Rejection
from glm130b.data.tokenizers.tokenizer import Tokenizer

_BATCH_CHARACTERS = 1 << 18
_BYTES_BETWEEN_REPORTS = 1 << 20


class _Document(NamedTuple):
    """A text, or a prompt and an answer."""

    texts: tuple[str, ...]
    text_hash: bytes
    content: bytes
    side: bytes
    place: tuple[int, int]
    """Piece and line."""


@dataclass(frozen=True)
class Job:
    """All that a worker must know to turn any shard of a request into tokens."""

    request: Request
    folder: Path
    """Shards go there."""

    def load_tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.request.tokenizer)

    def tokenise(self, shard: Shard, tokenizer: Tokenizer, advance: Callable[[int], None]) -> None:
        """Write the shard, telling ``advance`` the bytes of input as they are done. Raises Damaged and OSError, the
        latter only of what is written."""
        request = self.request
        with ShardWriter(self.folder / shard.key, kind=request.kind, vocab_size=tokenizer.vocab_size) as writer:
            for batch in _batches(_documents(shard, request, writer, advance)):
                writer.add(*_encoded(batch, request, tokenizer))


def _documents(
    shard: Shard, request: Request, writer: ShardWriter, advance: Callable[[int], None]
) -> Iterator[_Document]:
    dataset = request.datasets[shard.dataset]
    documents_of = _documents_of(dataset, request)
    columns = (request.reading.text_field,) if dataset.renderer is None else None
    for index, piece in enumerate(shard.pieces):
        reader = PieceReader(piece, request.reading, columns=columns)
        reported = 0
        try:
            for record in reader:
                writer.records += 1
                try:
                    if isinstance(record.value, Rejection):
                        raise record.value
                    yield from documents_of(record.value, (index, record.line))
                except ValueError as error:
                    writer.reject(piece=index, line=record.line, error=error)
                if reader.work_done - reported >= _BYTES_BETWEEN_REPORTS:
                    advance(reader.work_done - reported)
                    reported = reader.work_done
        except Damaged as error:
            raise Damaged(f"{piece}, after {reader.num_lines} lines: {error}") from None
        writer.lines.append(reader.num_lines)
        advance(piece.work - reported)


def _documents_of(
    dataset: Dataset, request: Request
) -> Callable[[dict[str, Any], tuple[int, int]], Sequence[_Document]]:
    """Makes the documents of one record, all or none. What it returns raises ValueError for a bad record."""
    longest, layouts = request.reading.longest_bytes, ((request.reading.text_field,),)
    if dataset.renderer is None:

        def texts(record: dict[str, Any], place: tuple[int, int]) -> Sequence[_Document]:
            (text,) = texts_of(record, layouts)
            hashed = blake2b(utf8(text, longest_bytes=longest))
            return (_Document((text,), hashed, hashed, hashed[:8], place),)

        return texts

    pairs_of = dataset.renderer.for_shard(request.is_held_out)

    def pairs(record: dict[str, Any], place: tuple[int, int]) -> Sequence[_Document]:
        documents = []
        for pair in pairs_of(record):
            prompt, answer = (utf8(text, longest_bytes=longest) for text in (pair.prompt, pair.answer))
            side = blake2b(pair.side.encode())[:8]
            documents.append(
                _Document((pair.prompt, pair.answer), blake2b(prompt), blake2b(prompt, answer), side, place)
            )
        return documents

    return pairs


def _batches(documents: Iterator[_Document]) -> Iterator[list[_Document]]:
    """Some documents at a time: enough to encode at full speed, few enough for a small memory."""
    batch: list[_Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += sum(map(len, document.texts))
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encoded(
    batch: Sequence[_Document], request: Request, tokenizer: Tokenizer
) -> tuple[NDArray[np.integer], Documents]:
    """The tokens of the documents, one after the other, and the documents' records."""
    records = np.empty(len(batch), document_dtype(request.kind))
    if request.kind == "text":
        flat, lengths = tokenizer.encode_flat([document.texts[0] for document in batch])
        tokens: NDArray[np.integer] = np.insert(flat, lengths.cumsum(), tokenizer.special.eod)
        lengths = lengths + 1
    else:
        sequences = [
            encoded
            for prompt, answer in (document.texts for document in batch)
            for encoded in (tokenizer.encode_with_blanks(prompt), tokenizer.encode(answer))
        ]
        tokens = np.fromiter(chain.from_iterable(sequences), np.int64)
        lengths = np.array([len(sequence) for sequence in sequences])
    records["lengths"] = lengths.reshape(records["lengths"].shape)
    records["text_hash"] = np.frombuffer(b"".join(d.text_hash for d in batch), np.uint8).reshape(-1, 16)
    records["content"] = np.frombuffer(b"".join(d.content for d in batch), ">u8").reshape(-1, 2)
    records["side"] = np.frombuffer(b"".join(d.side for d in batch), ">u8")
    records["piece"], records["line"] = np.array([document.place for document in batch]).T
    return tokens, records
