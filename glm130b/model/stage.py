"""The part of a model that one process holds."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from glm130b.config.model import ModelConfig
from glm130b.model.glm import GLM
from glm130b.model.kernels import Kernels


class Stage(nn.Module):
    """One chunk of consecutive layers, or with virtual stages several, spread evenly over the depth of the model."""

    def __init__(self, chunks: Sequence[GLM]) -> None:
        super().__init__()
        self.chunks = nn.ModuleList(chunks)

    def __iter__(self) -> Iterator[GLM]:
        return iter(self.chunks)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.chunks)

    @property
    def model(self) -> ModelConfig:
        """The sizes and switches of the whole model."""
        return next(iter(self)).model

    @property
    def kernels(self) -> Kernels:
        return next(iter(self)).kernels

    def forward(self, *arguments: Any) -> Tensor:
        """The only chunk's forward pass; several are run one by one, by the pipeline."""
        (chunk,) = self.chunks
        return chunk(*arguments)
