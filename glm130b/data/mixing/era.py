"""What a run is mixed of, and since when: a change in the middle of a run begins an era and leaves the past alone."""

from collections.abc import Iterator, Sequence

from glm130b.config.ramp import Ramp
from glm130b.config.section import Section
from glm130b.config.sections import RunConfig


class Era(Section):
    """The shares and weights that hold from one sample on. Plain data, so that a checkpoint can carry it."""

    from_samples: int
    """First sample of the era; the first era begins at 0."""
    instruction_share: Ramp
    mask_share: Ramp
    smask_share: Ramp
    text: dict[str, Ramp]
    """Weight of each text source by name."""
    instructions: dict[str, Ramp]

    @classmethod
    def of(cls, config: RunConfig, *, from_samples: int = 0) -> "Era":
        """What the config says, from a sample on; its ramps still count from the start of the run."""
        objective = config.objective
        return cls(
            from_samples=from_samples,
            instruction_share=objective.instruction_share,
            mask_share=objective.mask_share,
            smask_share=objective.smask_share,
            text={name: source.weight for name, source in config.data.text.items()},
            instructions={name: source.weight for name, source in config.data.instructions.items()},
        )

    def mixes_as(self, other: "Era") -> bool:
        """Whether both eras mix alike, whenever they begin."""
        return self.model_copy(update={"from_samples": other.from_samples}) == other


def continued(eras: Sequence[Era], config: RunConfig, *, samples: int) -> tuple[Era, ...]:
    """The eras of a run that goes on at ``samples`` with this config: one more if the config mixes in another way.

    Without earlier eras the config holds from the start. An era in which nothing was drawn is replaced, but those
    to come stay if the config mixes as the last of them: a restart after a rewind mixes as the same process would have.
    """
    if eras and eras[-1].mixes_as(Era.of(config)):
        return tuple(eras)
    kept = [era for era in eras if era.from_samples < samples]
    if kept and kept[-1].mixes_as(now := Era.of(config, from_samples=samples)):
        return tuple(kept)
    return (*kept, now) if kept else (Era.of(config),)


def changes(eras: Sequence[Era]) -> Iterator[str]:
    """The sentence that says where the mixture was changed, if it was."""
    if len(eras) > 1:
        begins = ", ".join(f"{era.from_samples:,}" for era in eras[1:])
        yield f"mixed in another way from sample {begins} on"
