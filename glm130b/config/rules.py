"""Every rule that spans two keys of a config, reported all at once; nothing is changed, nothing is assumed."""

import math
from collections.abc import Callable

from glm130b.config.errors import UserError
from glm130b.config.ramp import Ramp
from glm130b.config.sections import RunConfig, SourceConfig


def check(config: RunConfig, world_size: int | None = None) -> None:
    """Raise ``UserError`` with every problem of ``problems``, if there is one."""
    if found := problems(config, world_size=world_size):
        raise UserError(found)


def problems(config: RunConfig, *, world_size: int | None = None) -> list[str]:
    """What is wrong with the config, one sentence for each broken rule; empty when a run may start.

    ``world_size`` is the number of processes of the job; None checks what holds for any number.
    """
    rules: tuple[Callable[[RunConfig], list[str]], ...] = (_model, _pipeline, _row, _mixture, _learning_rate)
    return (
        [problem for rule in rules for problem in rule(config)] + _grid(config, world_size) + _batch(config, world_size)
    )


def _multiple(key: str, value: int, divisor: int, why: str) -> list[str]:
    if value % divisor == 0:
        return []
    below = value - value % divisor
    mend = f"{below} or {below + divisor}" if below else str(divisor)
    return [f"{key}: {value} is not a multiple of {divisor} ({why}); write for example {mend}"]


def _model(config: RunConfig) -> list[str]:
    model, tensor = config.model, config.parallel.tensor
    heads, hidden = model.num_attention_heads, model.hidden_size
    found = _multiple("model.hidden_size", hidden, heads, "one part for each of num_attention_heads")
    if not found and hidden // heads % 2:
        found.append(
            f"model.hidden_size: {hidden} over {heads} heads is {hidden // heads} a head, an odd number, and rotary "
            f"positions turn pairs; write for example {hidden + heads}"
        )
    return [
        *found,
        *_multiple("model.num_attention_heads", heads, tensor, "parallel.tensor"),
        *_multiple("model.ffn_hidden_size", model.ffn_hidden_size, tensor, "parallel.tensor"),
        *_multiple("model.vocab_size", model.vocab_size, tensor, "parallel.tensor"),
        *_inside("model.embedding_gradient_shrink.alpha", model.embedding_gradient_shrink.alpha, above_zero=True),
    ]


def _pipeline(config: RunConfig) -> list[str]:
    layers, stages = config.model.num_layers, config.parallel.pipeline
    found = []
    if config.parallel.zero_stage == 2 and stages > 1:
        found.append(
            f"parallel.zero_stage: 2 shards gradients, which {stages} pipeline stages still add to; "
            "write zero_stage: 1 or pipeline: 1"
        )
    if stages == 1:
        return found
    if not config.parallel.embedding_and_head_count_as_layers:
        return found + _multiple("model.num_layers", layers, stages, "parallel.pipeline")
    if (layers + 2) % stages or layers + 2 < 2 * stages:
        below = max((layers + 2) // stages, 2) * stages - 2
        mend = str(below) if below >= layers else f"{below} or {below + stages}"
        found.append(
            f"model.num_layers: {layers} layers, embedding and head do not fill {stages} stages evenly, at least two "
            f"on each (parallel.embedding_and_head_count_as_layers); write for example {mend}"
        )
    return found


def _grid(config: RunConfig, world_size: int | None) -> list[str]:
    parallel = config.parallel
    replica = parallel.tensor * parallel.pipeline
    size = replica * (parallel.data or 1)
    if world_size is None or world_size == size:
        return []
    if parallel.data is None:
        if world_size > 0 and world_size % size == 0:
            return []
        axes, needs, start, mend = "", f"a multiple of {size}", max(math.ceil(world_size / size), 1) * size, ""
    else:
        axes, needs, start = f" x data {parallel.data}", f"{size}", size
        mend = f" or set parallel.data={world_size // replica}" if world_size and world_size % replica == 0 else ""
    return [
        (
            f"parallel: tensor {parallel.tensor} x pipeline {parallel.pipeline}{axes} needs {needs} processes, "
            f"the launcher started {world_size}; start {start} (deepspeed --num_accelerators {start} ...){mend}"
        )
    ]


def _batch(config: RunConfig, world_size: int | None) -> list[str]:
    batch, parallel = config.batch, config.parallel
    replicas, left_over = divmod(world_size or 0, parallel.tensor * parallel.pipeline)
    data_size = parallel.data or (replicas if not left_over else 0) or 1
    unit = batch.micro_size * data_size
    why = f"batch.micro_size {batch.micro_size} x data-parallel size {data_size}"
    found = [
        *_multiple("batch.global_size", batch.global_size, unit, why),
        *_multiple("evaluation.samples", config.evaluation.samples, unit, why),
    ]
    if not batch.ramp:
        return found
    found += _multiple("batch.ramp.start", batch.ramp.start, unit, why)
    found += _multiple("batch.ramp.increment", batch.ramp.increment, unit, why)
    rise = batch.global_size - batch.ramp.start
    if rise <= 0:
        found.append(
            f"batch.ramp.start: {batch.ramp.start} is not below batch.global_size {batch.global_size}; "
            "write a smaller start, or batch.ramp: null"
        )
    elif rise % batch.ramp.increment:
        divisor = math.gcd(rise, math.lcm(batch.ramp.increment, unit))
        found.append(
            f"batch.ramp.increment: {batch.ramp.increment} does not divide the way of {rise} from start "
            f"{batch.ramp.start} to batch.global_size {batch.global_size}; write for example {divisor}"
        )
    return found


def _row(config: RunConfig) -> list[str]:
    length, samples, mask = config.data.sequence_length, config.objective.samples_per_row, config.objective.mask
    found = _multiple("data.sequence_length", length, samples, "objective.samples_per_row")
    # Each span adds a [MASK] to the text and an [sop] to the targets; spans of one token are the most there can be.
    shortest = mask.short_text_minimum_tokens
    needed = shortest + 2 * math.ceil(mask.coverage * shortest)
    if length // samples < needed:
        found.append(
            f"objective.samples_per_row: {samples} samples in {length} tokens leave {length // samples} each, and a "
            f"text of objective.mask.short_text_minimum_tokens {shortest} may need {needed} with its blanks; "
            + (
                f"write for example {length // needed}"
                if length >= needed
                else f"write sequence_length {needed} or more"
            )
        )
    return found


def _mixture(config: RunConfig) -> list[str]:
    share, data = config.objective.instruction_share, config.data
    found = [
        *_inside("objective.instruction_share", share),
        *_inside("objective.mask_share", config.objective.mask_share),
        *_weights("data.text", data.text),
        *_weights("data.instructions", data.instructions),
    ]
    if share.bounds[0] < 1:
        found += _supply("data.text", data.text, config.train_samples, "objective.instruction_share is below 1")
    if share.bounds[1] > 0:
        found += _supply(
            "data.instructions", data.instructions, config.train_samples, "objective.instruction_share is above 0"
        )
    return found


def _inside(key: str, ramp: Ramp, *, above_zero: bool = False) -> list[str]:
    smallest, largest = ramp.bounds
    too_small = smallest < 0 or (above_zero and smallest == 0)
    if not too_small and largest <= 1:
        return []
    allowed = "above 0 and up to 1" if above_zero else "from 0 to 1"
    return [f"{key}: {smallest if too_small else largest:g} is not {allowed}; write for example 0.1"]


def _weights(key: str, sources: dict[str, SourceConfig]) -> list[str]:
    negative = [name for name, source in sources.items() if source.weight.bounds[0] < 0]
    return [f"{key}.{name}.weight: falls below 0; write 0 to leave the source out" for name in negative]


def _supply(key: str, sources: dict[str, SourceConfig], train_samples: int, why: str) -> list[str]:
    """There is a source, and at no sample of the run are all weights zero."""
    if not sources:
        return [f"{key}: is empty although {why}; name a source or change the share"]
    # A weight is zero up to the beginning of its ramp, from its end on, always or never: if all are zero somewhere,
    # they are at the first sample or at the end of one of the ramps.
    weights = [source.weight for source in sources.values()]
    for sample in sorted({0, *(weight.from_samples + weight.over_samples for weight in weights)}):
        if sample < train_samples and not any(weight.at(sample) for weight in weights):
            return [
                f"{key}: all weights are 0 at sample {sample} although {why}; give one source a weight above 0 there"
            ]
    return []


def _learning_rate(config: RunConfig) -> list[str]:
    rate = config.optimizer.learning_rate
    found = []
    if rate.minimum > rate.peak:
        found.append(
            f"optimizer.learning_rate.minimum: {rate.minimum:g} is above peak {rate.peak:g}; "
            f"write for example {rate.peak / 10:g}"
        )
    if rate.warmup_samples > rate.decay_samples:
        found.append(
            f"optimizer.learning_rate.warmup_samples: {rate.warmup_samples} is more than decay_samples "
            f"{rate.decay_samples}, which counts from the start of the run; write a smaller warm-up or a longer decay"
        )
    return found
