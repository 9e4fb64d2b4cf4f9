"""Every rule that spans two keys of a config, reported all at once; nothing is changed, nothing is assumed."""

import math
from collections.abc import Iterator

from glm130b.config.errors import UserError
from glm130b.config.layout_rules import layout_problems
from glm130b.config.model_rules import model_problems
from glm130b.config.sections import ObjectiveConfig, RunConfig, SourceConfig
from glm130b.config.stability_rules import stability_problems
from glm130b.config.wording import inside, multiple

SMALLEST_SHARE = 1e-7
"""Of a source among those of its section: to place a sample costs time in proportion to 1 / (smallest share)."""


def check(config: RunConfig, world_size: int | None = None) -> None:
    """Raise ``UserError`` with every problem of ``problems``, if there is one."""
    if found := problems(config, world_size=world_size):
        raise UserError(found)


def problems(config: RunConfig, *, world_size: int | None = None) -> list[str]:
    """What is wrong with the config, one sentence for each broken rule; empty when a run may start.

    ``world_size`` is the number of processes of the job; None checks what holds for any number.
    """
    return [
        *model_problems(config),
        *layout_problems(config, world_size),
        *_row(config),
        *_mixture(config),
        *stability_problems(config),
        *_learning_rate(config),
    ]


def _row(config: RunConfig) -> Iterator[str]:
    length, samples, mask = config.data.sequence_length, config.objective.samples_per_row, config.objective.mask
    yield from multiple("data.sequence_length", length, samples, "objective.samples_per_row")
    # Each span adds a [MASK] to the text and an [sop] to the targets; spans of one token are the most there can be.
    shortest = mask.short_text_minimum_tokens
    needed = shortest + 2 * math.ceil(mask.coverage * shortest)
    if length // samples < needed:
        yield (
            f"objective.samples_per_row: {samples} samples in {length} tokens leave {length // samples} each, and a "
            f"text of objective.mask.short_text_minimum_tokens {shortest} may need {needed} with its blanks; "
            + (
                f"write for example {length // needed}"
                if length >= needed
                else f"write sequence_length {needed} or more"
            )
        )
    if mask.text_tokens is not None and mask.text_tokens + 2 > length // samples:
        yield (
            f"objective.mask.text_tokens: {mask.text_tokens} leave no room for a target in the {length // samples} "
            f"tokens of a sample; write at most {length // samples - 2}"
        )


def _mixture(config: RunConfig) -> Iterator[str]:
    share, data = config.objective.instruction_share, config.data
    yield from inside("objective.instruction_share", share)
    yield from _text_shares(config.objective)
    yield from _weights("data.text", data.text)
    yield from _weights("data.instructions", data.instructions)
    if share.bounds[0] < 1:
        yield from _supply("data.text", data.text, config.train_samples, "objective.instruction_share is below 1")
    if share.bounds[1] > 0:
        yield from _supply(
            "data.instructions", data.instructions, config.train_samples, "objective.instruction_share is above 0"
        )


def _text_shares(objective: ObjectiveConfig) -> Iterator[str]:
    """Each share is a share, and both together leave none or some to [gMASK], at every sample."""
    mask, smask = objective.mask_share, objective.smask_share
    wrong = [*inside("objective.mask_share", mask), *inside("objective.smask_share", smask)]
    yield from wrong
    # Between the ends of both ramps the sum is linear, so it is largest at one of them.
    ends = {end for ramp in (mask, smask) for end in (0, ramp.from_samples, ramp.from_samples + ramp.over_samples)}
    if not wrong and (most := max(mask.at(end) + smask.at(end) for end in ends)) > 1 + 1e-9:
        yield (
            f"objective.smask_share: comes to {most:g} together with objective.mask_share, and [gMASK] has the rest of "
            "1; write smaller shares"
        )


def _weights(key: str, sources: dict[str, SourceConfig]) -> Iterator[str]:
    total = sum(source.weight.bounds[1] for source in sources.values())
    for name, source in sources.items():
        if source.weight.bounds[0] < 0:
            yield f"{key}.{name}.weight: falls below 0; write 0, or take the source out"
        elif 0 < source.weight.bounds[1] < SMALLEST_SHARE * total:
            yield (
                f"{key}.{name}.weight: {source.weight.bounds[1]:g} is less than {SMALLEST_SHARE:g} of all weights, and "
                "a source that is drawn so seldom takes minutes to place; write a larger one, or 0"
            )


def _supply(key: str, sources: dict[str, SourceConfig], train_samples: int, why: str) -> Iterator[str]:
    """There is a source, and at no sample of the run are all weights zero."""
    if not sources:
        yield f"{key}: is empty although {why}; name a source or change the share"
        return
    # A weight is zero up to the beginning of its ramp, from its end on, always or never: if all are zero somewhere,
    # they are at the first sample or at the end of one of the ramps.
    weights = [source.weight for source in sources.values()]
    for sample in sorted({0, *(weight.from_samples + weight.over_samples for weight in weights)}):
        if sample < train_samples and not any(weight.at(sample) for weight in weights):
            yield f"{key}: all weights are 0 at sample {sample} although {why}; give one source a weight above 0 there"
            return


def _learning_rate(config: RunConfig) -> Iterator[str]:
    rate = config.optimizer.learning_rate
    if rate.minimum > rate.peak:
        yield (
            f"optimizer.learning_rate.minimum: {rate.minimum:g} is above peak {rate.peak:g}; "
            f"write for example {rate.peak / 10:g}"
        )
    if rate.warmup_samples > rate.decay_samples:
        yield (
            f"optimizer.learning_rate.warmup_samples: {rate.warmup_samples} is more than decay_samples "
            f"{rate.decay_samples}, which counts from the start of the run; write a smaller warm-up or a longer decay"
        )
