"""How a model may be laid out: rules between its sizes, the grid of processes, and the batch."""

import math
from collections.abc import Iterator

from glm130b.config.derived import batch_unit, data_parallel_size, least_world_size, replica_size
from glm130b.config.sections import RunConfig
from glm130b.config.wording import multiple


def layout_problems(config: RunConfig, world_size: int | None) -> Iterator[str]:
    """What keeps the model, the batch or the job from being cut as ``parallel`` says."""
    yield from _tensor(config)
    yield from _sequence(config)
    yield from _pipeline(config)
    yield from _zero(config)
    yield from _grid(config, world_size)
    yield from _batch(config, world_size)


def _tensor(config: RunConfig) -> Iterator[str]:
    model, tensor = config.model, config.parallel.tensor
    yield from multiple("model.num_attention_heads", model.num_attention_heads, tensor, "parallel.tensor")
    yield from _key_value_heads(config)
    yield from multiple("model.ffn_hidden_size", model.ffn_hidden_size, tensor, "parallel.tensor")
    # With fewer rows there could be tokens without one.
    yield from multiple("model.vocab_size", model.vocab_size, tensor, "parallel.tensor", only_up=True)


def _key_value_heads(config: RunConfig) -> Iterator[str]:
    """Several ranks may share a head of key and value; the rows of the fused projection are still cut evenly."""
    model, tensor = config.model, config.parallel.tensor
    heads, shared = model.num_attention_heads, model.key_value_heads
    if heads % tensor or heads % shared or shared % tensor == 0:
        return  # said already, or it fits
    rows = (heads + 2 * shared) * model.head_size
    if tensor % shared:
        fitting = [some for some in range(1, heads + 1) if heads % some == 0 and not (some % tensor and tensor % some)]
        yield (
            f"model.num_key_value_heads: {shared} is neither a multiple nor a divisor of {tensor} (parallel.tensor); "
            f"write for example {min(fitting, key=lambda some: abs(some - shared))}"
        )
    elif rows % tensor:
        yield (
            f"model.num_key_value_heads: {shared} and {heads} query heads of {model.head_size} make {rows} rows, not a "
            f"multiple of {tensor} (parallel.tensor); write for example {tensor}"
        )


def _sequence(config: RunConfig) -> Iterator[str]:
    if config.parallel.sequence_parallel:
        why = "parallel.tensor, with sequence_parallel"
        yield from multiple("data.sequence_length", config.data.sequence_length, config.parallel.tensor, why)


def _pipeline(config: RunConfig) -> Iterator[str]:
    layers, stages, virtual = config.model.num_layers, config.parallel.pipeline, config.parallel.virtual_stages
    chunks = stages * virtual
    if stages == 1 and virtual > 1:
        yield (
            f"parallel.virtual_stages: {virtual} chunks a stage take turns with those of other stages, and "
            "parallel.pipeline is 1; write virtual_stages: 1 or pipeline: 2"
        )
    elif stages > 1 and not config.parallel.embedding_and_head_count_as_layers:
        why = "parallel.pipeline" + " x virtual_stages" * (virtual > 1)
        fits = (layers + 2) % chunks == 0 and layers + 2 >= 2 * chunks
        switch = ", or parallel.embedding_and_head_count_as_layers: true" * fits
        yield from (problem + switch for problem in multiple("model.num_layers", layers, chunks, why))
    # Megatron-core takes a chunk that is the embedding or the head alone, but puts the final norm elsewhere then.
    elif stages > 1 and ((layers + 2) % chunks or layers + 2 < 2 * chunks):
        below = max((layers + 2) // chunks, 2) * chunks - 2
        mend = str(below) if below >= layers else f"{below} or {below + chunks}"
        parts = f"{stages} stages" + f" x {virtual} virtual stages" * (virtual > 1)
        yield (
            f"model.num_layers: {layers} layers, embedding and head do not fill {parts} evenly, at least two on each "
            f"(parallel.embedding_and_head_count_as_layers); write for example {mend}"
        )


def _zero(config: RunConfig) -> Iterator[str]:
    stage, stages = config.parallel.zero_stage, config.parallel.pipeline
    mend = "write zero_stage: 1, or 2 with pipeline: 1"
    if stage < 0:
        yield f"parallel.zero_stage: {stage} is no stage of ZeRO; {mend}"
    if stage == 0:
        yield (
            "parallel.zero_stage: 0 clips by a wrong gradient norm where the model is cut, and in fp16 and bf16 takes "
            f"Adam's first step for its second; {mend}"
        )
    if stage == 2 and stages > 1:
        yield (
            f"parallel.zero_stage: 2 shards gradients, which {stages} pipeline stages still add to; "
            "write zero_stage: 1 or pipeline: 1"
        )
    if stage == 2 and config.parallel.sequence_parallel and config.parallel.tensor > 1:
        yield (
            "parallel.zero_stage: 2 shards gradients as they come, and those of the norms are still parts of a sum "
            "with sequence_parallel; write zero_stage: 1 or sequence_parallel: false"
        )
    if stage > 2:
        yield (
            f"parallel.zero_stage: {stage} takes the weights away from the pipeline's schedule and the checkpoint, and "
            f"tensor and pipeline cut them already; {mend}"
        )


def _grid(config: RunConfig, world_size: int | None) -> Iterator[str]:
    parallel, replica, size = config.parallel, replica_size(config), least_world_size(config)
    if world_size is None or world_size == size:
        return
    axes, mend, start = "", "", size
    if parallel.data == "largest":
        if world_size > size:
            return
        needs = f"at least {size}"
    elif parallel.data is None:
        if world_size > 0 and world_size % size == 0:
            return
        needs, start = f"a multiple of {size}", max(math.ceil(world_size / size), 1) * size
    else:
        axes, needs = f" x data {parallel.data}", f"{size}"
        mend = f" or set parallel.data={world_size // replica}" if world_size and world_size % replica == 0 else ""
    yield (
        f"parallel: tensor {parallel.tensor} x pipeline {parallel.pipeline}{axes} needs {needs} processes, "
        f"the launcher started {world_size}; start {start} (deepspeed --num_accelerators {start} ...){mend}"
    )


def _batch(config: RunConfig, world_size: int | None) -> Iterator[str]:
    """Every batch, on the way up and in evaluation, is whole micro-batches for each data-parallel rank."""
    batch, parallel = config.batch, config.parallel
    fits = world_size and (parallel.data == "largest" or world_size % replica_size(config) == 0)
    data_size = data_parallel_size(config, world_size if world_size and fits else least_world_size(config)) or 1
    unit = batch_unit(config, data_size)
    why = f"batch.micro_size {batch.micro_size} x data-parallel size {data_size}"
    if parallel.virtual_stages > 1:
        why += f" x pipeline {parallel.pipeline}, with virtual_stages"
    yield from multiple("batch.global_size", batch.global_size, unit, why)
    yield from multiple("evaluation.samples", config.evaluation.samples, unit, why)
    if not batch.ramp:
        return
    yield from multiple("batch.ramp.start", batch.ramp.start, unit, why)
    yield from multiple("batch.ramp.increment", batch.ramp.increment, unit, why)
    rise = batch.global_size - batch.ramp.start
    if rise <= 0:
        yield (
            f"batch.ramp.start: {batch.ramp.start} is not below batch.global_size {batch.global_size}; "
            "write a smaller start, or batch.ramp: null"
        )
    elif rise % batch.ramp.increment:
        divisor = math.gcd(rise, math.lcm(batch.ramp.increment, unit))
        yield (
            f"batch.ramp.increment: {batch.ramp.increment} does not divide the way of {rise} from start "
            f"{batch.ramp.start} to batch.global_size {batch.global_size}; write for example {divisor}"
        )
