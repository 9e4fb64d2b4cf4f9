"""``tensors.json``: which rectangle of which whole tensor stands where in which file of a checkpoint.

Plain JSON, because a checkpoint may come from anywhere: nothing in it is ever executed, and no name in it leads out of
its folder.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from glm130b.config.errors import UserError
from glm130b.config.section import Section

TENSORS = "tensors.json"
ELEMENT_BYTES = 4
"""All that is saved is fp32, least significant byte first, row-major, without any header."""

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Sizes = tuple[Annotated[int, Field(ge=1, lt=2**48)], ...]


class Chunk(Section):
    """A rectangle of a tensor and its place."""

    offset: tuple[_Count, ...] = Field(strict=False)
    """Of its first element in the whole tensor."""
    sizes: _Sizes = Field(strict=False)
    file: str = Field(pattern=r"^__[0-9]+_[0-9]+\.distcp$")
    """A name in the checkpoint's own folder."""
    byte: _Count
    """Where in the file it begins."""

    @property
    def num_bytes(self) -> int:
        return ELEMENT_BYTES * math.prod(self.sizes)


class StoredTensor(Section):
    """A whole tensor in its chunks, which cover it without overlap."""

    dtype: Literal["float32"] = "float32"
    shape: _Sizes = Field(strict=False)
    chunks: tuple[Chunk, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _check(self) -> "StoredTensor":
        for chunk in self.chunks:
            if not len(chunk.offset) == len(chunk.sizes) == len(self.shape):
                raise ValueError(f"a chunk of {list(chunk.sizes)} at {list(chunk.offset)} in shape {list(self.shape)}")
            if any(o + n > size for o, n, size in zip(chunk.offset, chunk.sizes, self.shape, strict=True)):
                raise ValueError(f"the chunk at {list(chunk.offset)} leaves the shape {list(self.shape)}")
        if sum(chunk.num_bytes for chunk in self.chunks) != ELEMENT_BYTES * math.prod(self.shape):
            raise ValueError(f"the chunks do not fill the shape {list(self.shape)}")
        return self


class Layout(Section):
    """Every tensor of a checkpoint by ``<state>/<parameter>``."""

    tensors: dict[str, StoredTensor]

    @classmethod
    def read(cls, checkpoint: Path) -> "Layout":
        """Raises UserError when ``tensors.json`` is not what ``to_json`` wrote, OSError when it cannot be read."""
        file = checkpoint / TENSORS
        try:
            return cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (ValidationError, ValueError, RecursionError) as error:
            raise UserError(
                f"{file}: does not tell where the tensors are ({_reason(error)}); go on from another checkpoint"
            ) from error

    @classmethod
    def of(cls, metadata: Metadata, places: dict[MetadataIndex, tuple[str, int]]) -> "Layout":
        """What torch.distributed.checkpoint planned, and the (file, byte) that each rectangle was written at."""
        tensors = {}
        for key, stored in metadata.state_dict_metadata.items():
            assert isinstance(stored, TensorStorageMetadata)
            assert stored.properties.dtype == torch.float32
            chunks = []
            for chunk in stored.chunks:
                file, byte = places[MetadataIndex(key, chunk.offsets)]
                chunks.append(Chunk(offset=tuple(chunk.offsets), sizes=tuple(chunk.sizes), file=file, byte=byte))
            tensors[key] = StoredTensor(shape=tuple(stored.size), chunks=tuple(chunks))
        return cls(tensors=tensors)

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":"))

    def metadata(self) -> Metadata:
        """As torch.distributed.checkpoint plans with it; ``storage_data`` finds the Chunk of an index."""
        return Metadata(
            {key: _metadata_of(tensor) for key, tensor in self.tensors.items()},
            storage_data={
                MetadataIndex(key, chunk.offset): chunk
                for key, tensor in self.tensors.items()
                for chunk in tensor.chunks
            },
        )


def _metadata_of(tensor: StoredTensor) -> TensorStorageMetadata:
    return TensorStorageMetadata(
        TensorProperties(dtype=torch.float32),
        torch.Size(tensor.shape),
        [ChunkStorageMetadata(torch.Size(chunk.offset), torch.Size(chunk.sizes)) for chunk in tensor.chunks],
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error) or type(error).__name__
