"""Reads what wandb has written offline. wandb has no reader in Python; its file is a log of LevelDB's format."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32 * 1024
_FILE_HEADER = 7
_CHUNK = struct.Struct("<IHB")
"""Checksum, bytes, and whether it is a record's only (1), first (2), middle (3) or last (4) chunk."""


def records(folder: Path) -> Iterator[Record]:
    """Every record of a run's only ``.wandb`` file."""
    (file,) = folder.glob("*.wandb")
    data, whole = file.read_bytes(), b""
    at = _FILE_HEADER
    while at + _CHUNK.size <= len(data):
        if _BLOCK - at % _BLOCK < _CHUNK.size:  # no room for a chunk: padding
            at += _BLOCK - at % _BLOCK
            continue
        _, length, part = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        whole += data[at : at + length]
        at += length
        if part in (1, 4):
            yield Record.FromString(whole)
            whole = b""
