"""Which part of each parameter this data rank owns under ZeRO, and whether it counts in a norm."""

from dataclasses import dataclass

from torch import Tensor

from glm130b.model.sharding import EMBEDDING, ParameterShard


@dataclass(frozen=True)
class Owned:
    """The part of one parameter whose fp32 state and reduced gradient this data rank owns."""

    shard: ParameterShard
    group: int
    """Index of the optimizer's parameter group."""
    group_start: int
    """Of the part in the group's flat tensors, which hold this rank's parts one after the other."""
    parameter_start: int
    """Of the part in the flattened local parameter."""
    length: int
    is_counted: bool
    """Where several ranks hold the same piece of a parameter, one of them counts in a norm."""

    def of(self, flat: Tensor) -> Tensor:
        """The part as a view of one of its group's flat tensors."""
        return flat.narrow(0, self.group_start, self.length)

    @property
    def is_embedding(self) -> bool:
        """Whether it stands for a part of the word embedding."""
        return self.shard.name == EMBEDDING and self.is_counted
