"""The training data as a sequence of rows: a row is a pure function of (config, seed, sample index)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era
from glm130b.data.mixing.mixture import Mixture
from glm130b.data.objectives.row import Row
from glm130b.data.sources import Sources

OBJECTIVES: tuple[str, ...] = ("mask", "smask", "gmask", "instruction")


@dataclass(frozen=True)
class GLMDataset:
    """Rows by sample index, the same in every process, whatever was asked before."""

    sources: Sources
    mixture: Mixture

    @classmethod
    def open(
        cls, config: RunConfig, *, split: Literal["train", "validation"], eras: Sequence[Era] = ()
    ) -> "GLMDataset":
        """The rows of a run in its eras; without them, of one that begins with this config. Raises UserError with every
        missing, damaged or unsuitable file.

        The held-out split mixes all its rows as training does when every ramp of the mixture has ended, so that its
        first n rows are always the same.
        """
        mixture = Mixture(eras or [Era.of(config)], settled=split == "validation")
        return cls(Sources(config, mixture.kinds, split=split), mixture)

    def __getitem__(self, sample_index: int) -> Row:
        return self.sources.row(self.mixture.locate(sample_index))
