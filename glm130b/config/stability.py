"""The stability guard: what counts as a spike, and what is done about it."""

from typing import Literal

from pydantic import Field

from glm130b.config.section import Section

Action = Literal["warn", "skip_update", "rewind", "shrink_alpha", "lower_learning_rate", "rewarm", "stop"]

INTERVENTIONS: frozenset[Action] = frozenset({"rewind", "shrink_alpha", "lower_learning_rate", "rewarm"})
"""Actions that change the run: recorded, and counted by ``most_interventions``."""


class SpikeRule(Section):
    """When one signal is a spike, and what follows. Every spike is told, whatever the actions."""

    deviations: float = Field(default=12.0, gt=0)
    """How far above the window's median, in its standard deviations: robust ones, by the median difference between
    neighbours."""
    ratio: float = Field(default=3.0, ge=1)
    """And by which factor above the median at least, so that a flat window does not make noise a spike."""
    in_a_row: int = Field(default=1, ge=1)
    """Consecutive steps that must be spikes before anything but a warning is done."""
    actions: tuple[Action, ...] = ("warn",)
    """All of them, once a row is so long; ``skip_update`` for as long as it goes on."""


class LossRule(SpikeRule):
    """The loss has less noise than a gradient's norm, and one step of it says less."""

    deviations: float = Field(default=7.0, gt=0)
    """How far above the window's median, in its robust standard deviations."""
    ratio: float = Field(default=1.1, ge=1)
    """And by which factor above the median at least."""
    in_a_row: int = Field(default=3, ge=1)
    """Consecutive spikes before anything but a warning is done."""


class FaultRule(Section):
    """What follows when steps in a row had no usable gradient; the weights never see one."""

    in_a_row: int = Field(default=10, ge=1)
    """Consecutive steps before anything but a warning is done."""
    actions: tuple[Action, ...] = ("stop",)
    """All of them, once a row is so long."""


class OverflowRule(FaultRule):
    """An overflow now and then is how the loss scale finds its place, so it is told only when a row is complete."""

    in_a_row: int = Field(default=20, ge=1)
    """Consecutive overflows before anything is said or done."""


class RewindConfig(Section):
    """Back to a checkpoint from before the trouble, and past the data that made it (GLM-130B: 200 steps)."""

    margin_steps: int = Field(default=10, ge=0)
    """The checkpoint is at least so many steps older than the first step of the row."""
    skip_before_steps: int = Field(default=10, ge=0)
    """Steps before the first of the row whose data is passed over, too."""
    skip_after_steps: int = Field(default=50, ge=0)
    """Steps behind the last of the row whose data is passed over, too."""


class StabilityConfig(Section):
    """Judges loss and gradient norms before every update, against the median of a window of steps that were no spikes.

    A loss or gradient that is not finite never reaches the weights, whatever the rules say.
    """

    window_steps: int = Field(default=128, ge=8)
    """Steps that the median is taken over."""
    quiet_steps: int = Field(default=32, ge=8)
    """Steps in the window before anything is judged; and so many spikes in a row are a new level, unless the rule
    changes or stops the run."""
    loss: LossRule = LossRule()
    gradient_norm: SpikeRule = SpikeRule()
    """Global."""
    embedding_gradient_norm: SpikeRule = SpikeRule()
    """Of the word embedding: GLM-130B's loss spikes announced themselves there (paper, section 2.3)."""
    not_finite: FaultRule = FaultRule()
    """Loss or gradient, outside fp16's ordinary overflows."""
    overflow: OverflowRule = OverflowRule()
    """fp16's scaled gradients overflowed so many steps in a row."""
    minimum_scale: FaultRule = FaultRule()
    """Overflows at ``precision.loss_scale.minimum``: the scale cannot go lower."""
    rewind: RewindConfig = RewindConfig()
    alpha_factor: float = Field(default=0.5, gt=0, lt=1)
    """Of ``shrink_alpha``."""
    learning_rate_factor: float = Field(default=0.5, gt=0, lt=1)
    """Of ``lower_learning_rate``."""
    rewarm_steps: int = Field(default=200, ge=1)
    """Of ``rewarm``: steps over which the learning rate rises again."""
    pause_steps: int = Field(default=100, ge=0)
    """Steps that an intervention is given to take effect: until they are over the next one waits, unless it rewinds."""
    most_interventions: int = Field(default=10, ge=0)
    """After so many the next one is ``stop``: a run that needs more needs a person."""

    @property
    def rules(self) -> dict[str, SpikeRule | FaultRule]:
        """By key, in their order."""
        return {key: rule for key, rule in self if isinstance(rule, (SpikeRule, FaultRule))}

    @property
    def may_rewind(self) -> bool:
        """Whether any rule goes back to a checkpoint, so that there must be one."""
        return any("rewind" in rule.actions for rule in self.rules.values())
