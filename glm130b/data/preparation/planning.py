"""Which shards an input is cut into."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.data.preparation.inputs import Request, blake2b
from glm130b.data.reading.pieces import Piece, cut
from glm130b.data.reading.rejection import Damaged

# Part of every shard's key: another number when shards are written differently.
_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """A part of the input that one worker turns into tokens at a time."""

    dataset: int
    """Index into the request's datasets."""
    first_file: int
    """Index of the first piece's file among the request's files; further pieces are whole files after it."""
    pieces: tuple[Piece, ...]
    key: str
    """Says all that its tokens depend on; its folder's name."""

    @property
    def work(self) -> int:
        """Bytes of the input."""
        return sum(piece.work for piece in self.pieces)

    def __str__(self) -> str:
        return str(self.pieces[0]) + (f" and {len(self.pieces) - 1} files after it" if len(self.pieces) > 1 else "")


@dataclass(frozen=True)
class Cutting:
    """How large shards are. It is no option: few-shot exemplars come from their own shard."""

    piece_bytes: int = 32 << 20
    small_file_bytes: int = 512 << 10
    """Files below this go into one shard with their neighbours. How many depends on no other file's size, so that a
    file that changes does not move the bounds of the other shards."""
    files_per_shard: int = 64


def plan_shards(request: Request, *, fingerprint: str, cutting: Cutting) -> list[Shard]:
    """The shards in the order of their documents. Raises UserError with every file that cannot be read."""
    problems: list[str] = []
    shards = []
    first_file = 0
    for index, dataset in enumerate(request.datasets):
        # Held-out exemplars are never shown, so pairs may depend on the split.
        share = request.validation_share if dataset.renderer else None
        about = [_FORMAT, request.kind, fingerprint, dataset.name, share, repr(dataset.renderer), repr(request.reading)]
        for number, pieces in _gathered(dataset.files, request, cutting, problems):
            content = [[str(piece.file), piece.size, piece.modified, piece.start, piece.end] for piece in pieces]
            key = blake2b(json.dumps([*about, *content]).encode()).hex()
            shards.append(Shard(index, first_file + number, tuple(pieces), key))
        first_file += len(dataset.files)
    if problems:
        raise UserError(problems)
    return shards


def _gathered(
    files: tuple[Path, ...], request: Request, cutting: Cutting, problems: list[str]
) -> Iterator[tuple[int, list[Piece]]]:
    """(number of the first file, pieces) of each shard."""
    small: list[Piece] = []
    for number, file in enumerate(files):
        pieces: list[Piece] = []
        try:
            pieces = list(cut(file, reading=request.reading, piece_bytes=cutting.piece_bytes))
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}); name a file with documents")
        except Damaged as error:
            problems.append(f"{file}: {error}")
        is_small = len(pieces) == 1 and pieces[0].size < cutting.small_file_bytes
        if small and (not is_small or len(small) == cutting.files_per_shard):
            yield number - len(small), small
            small = []
        if is_small:
            small.append(pieces[0])
        else:
            yield from ((number, [piece]) for piece in pieces)
    if small:
        yield len(files) - len(small), small
