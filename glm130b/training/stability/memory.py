"""What the guard carries from step to step and from checkpoint to checkpoint."""

from pydantic import Field

from glm130b.config.interventions import Intervention
from glm130b.config.section import Section
from glm130b.training.stability.window import Window


class Row(Section):
    """Readings one after another that all broke the same rule."""

    first_step: int
    length: int = 1

    def longer(self) -> "Row":
        return Row(first_step=self.first_step, length=self.length + 1)


class Memory(Section):
    """Everything that the next verdict depends on besides the config and the next reading."""

    windows: dict[str, Window] = Field(default_factory=dict)
    """By signal."""
    rows: dict[str, Row] = Field(default_factory=dict)
    """By rule; a rule that the last reading kept has none."""
    interventions: tuple[Intervention, ...] = ()
    """The guard's own, in the order in which they were decided."""
    settled_step: int = 0
    """Step from which an intervention that does not rewind may follow the last one."""

    def rewound_to(self, older: "Memory") -> "Memory":
        """The memory to go on with from a checkpoint whose memory is ``older``: the past as it was then, and every
        intervention decided since."""
        return older.model_copy(update={"interventions": self.interventions, "settled_step": self.settled_step})
