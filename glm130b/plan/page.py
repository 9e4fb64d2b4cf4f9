"""The plan of a run on one page of 80 columns."""

from collections.abc import Iterator

from glm130b.config import derived
from glm130b.config.ramp import Ramp
from glm130b.config.sections import CheckpointConfig, ParallelConfig, RunConfig
from glm130b.plan.cluster import Cluster
from glm130b.plan.expense_page import expense_blocks
from glm130b.plan.wording import millions, short, shown, span
from glm130b.training.schedules import Schedules


def page(config: RunConfig, *, world_size: int | None = None, cluster: Cluster | None = None) -> str:
    """Grid, parameters, step, milestones, checkpoints and guard of a valid config as text; with ``cluster`` memory,
    step time and cost, too.

    Without a data-parallel size in the config and without ``world_size`` the page describes one replica of the model.
    """
    parallel = config.parallel
    one_replica = not isinstance(parallel.data, int) and world_size is None
    data_size = derived.data_parallel_size(config, world_size or derived.replica_size(config))
    blocks = [
        _model(config),
        _grid(config, data_size, one_replica=one_replica, world_size=world_size),
        _step(config, data_size, one_replica=one_replica),
        *(expense_blocks(config, data_size, cluster) if cluster else ()),
        _milestones(config),
        _checkpoints(config),
        _stability(config),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def _model(config: RunConfig) -> Iterator[str]:
    model = config.model
    shared = f", {model.key_value_heads} of key and value" * (model.key_value_heads < model.num_attention_heads)
    placement = "parallel block, pre" if model.parallel_block else model.norm_placement
    yield f"{config.name}: {derived.num_parameters(model):,} parameters in {config.precision.dtype}"
    yield (
        f"  {model.num_layers} layers, hidden {model.hidden_size}, {model.num_attention_heads} heads, "
        f"ffn {model.ffn_hidden_size}, vocabulary {model.vocab_size}"
    )
    yield f"  {model.attention} attention, positions {model.positions}, heads of {model.head_size}{shared}"
    yield f"  {placement} {model.normalization}, {model.ffn}, {'tied' if model.tie_embedding else 'untied'} embedding"


def _grid(config: RunConfig, data_size: int, *, one_replica: bool, world_size: int | None) -> Iterator[str]:
    parallel = config.parallel
    tensor, stages = parallel.tensor, parallel.pipeline
    processes = tensor * stages * data_size
    yield f"Grid: tensor {tensor} x pipeline {stages} x data {data_size} = {processes} process{'es' * (processes > 1)}"
    if one_replica:
        yield "  parallel.data is open: this is one replica (--world-size N shows all)"
    elif world_size and world_size > processes:
        spares = world_size - processes
        yield f"  the batch can be shared out over no more: {spares} process{'es' * (spares > 1)} will stand by"
    yield f"  {', '.join(_choices(parallel))}"
    if parallel.virtual_stages > 1:
        yield f"  {parallel.virtual_stages} chunks of layers on each stage, its first is shown"
    layers = derived.layers_per_stage(config)
    first_layers = [chunks[0] for chunks in derived.layers_per_chunk(config)]
    whole, held = derived.parameters_per_stage(config), derived.parameters_per_stage(config, tensor)
    replicas = shown(data_size, most=3)
    names = ["..." if replica is None else f"data {replica}" for replica in replicas]
    yield f"  stage layers       parameters   a process  ranks{''.join(f'{name:>10}' for name in names)}"
    for stage in shown(stages, most=16):
        if stage is None:
            yield "  ..."
            continue
        own = f"{span(first_layers[stage].start, len(first_layers[stage]))} ({layers[stage]})"
        first = [None if replica is None else (stage * data_size + replica) * tensor for replica in replicas]
        ranks = "".join(f"{'...' if rank is None else span(rank, tensor):>10}" for rank in first)
        yield f"  {stage:<6}{own:11}{millions(whole[stage]):>12}{millions(held[stage]):>12}       {ranks}"
    yield f"  the largest process holds {max(held):,} parameters"


def _choices(parallel: ParallelConfig) -> Iterator[str]:
    """What is cut besides the model, and what is computed twice."""
    yield f"ZeRO stage {parallel.zero_stage}"
    if parallel.offload_optimizer:
        yield "optimizer on the CPU"
    if parallel.sequence_parallel:
        yield "sequence parallel"
    yield f"recompute {parallel.recompute}"


def _step(config: RunConfig, data_size: int, *, one_replica: bool) -> Iterator[str]:
    batch = config.batch
    sizes = [batch.global_size] if batch.ramp is None else [batch.ramp.start, batch.global_size]
    yield "Step" + " (all data on the one replica)" * one_replica
    for name, size in zip(["first", "full"][-len(sizes) :], sizes, strict=True):
        micro_batches = derived.num_micro_batches(config, batch_size=size, data_size=data_size)
        bubble = derived.bubble_share(config, micro_batches)
        yield (
            f"  {name:6} {size:,} rows, {derived.tokens_per_step(config, size):,} tokens, "
            f"{micro_batches:,} micro-batches, {bubble:.1%} bubble"
        )
    flops = derived.model_flops_per_sample(config) * batch.global_size
    yield f"  {short(flops)}FLOP of model arithmetic in a full step"


def _milestones(config: RunConfig) -> Iterator[str]:
    schedules = Schedules(config)
    rate = config.optimizer.learning_rate
    milestones = [("warm-up ends", rate.warmup_samples), ("learning rate is at its minimum", rate.decay_samples)]
    if config.batch.ramp:
        milestones.append(("batch is full", config.batch.ramp.over_samples))
    milestones += [(f"{name} ramp ends", ramp.from_samples + ramp.over_samples) for name, ramp in _ramps(config)]
    milestones.append(("run ends", config.train_samples))
    yield f"Milestones{'after step':>50}{'samples':>18}"
    for name, samples in sorted(milestones, key=lambda milestone: milestone[1]):
        step = schedules.steps_until(samples)
        yield f"  {name:38}{'never' if step > schedules.num_steps else f'{step:,}':>20}{samples:18,}"


def _ramps(config: RunConfig) -> Iterator[tuple[str, Ramp]]:
    """Everything that changes over the samples, by a short name."""
    objective, data = config.objective, config.data
    ramps = {
        "gradient shrink": config.model.embedding_gradient_shrink.alpha,
        "instruction share": objective.instruction_share,
        "[MASK] share": objective.mask_share,
        **{f"weight of text {name}": source.weight for name, source in data.text.items()},
        **{f"weight of instructions {name}": source.weight for name, source in data.instructions.items()},
    }
    yield from ((name, ramp) for name, ramp in ramps.items() if ramp.start != ramp.end)


def _checkpoints(config: RunConfig) -> Iterator[str]:
    every = config.checkpoint.every_steps
    count = -(-Schedules(config).num_steps // every)
    size = short(derived.checkpoint_bytes(config))
    yield f"Checkpoints: one every {every:,} steps and at the end, {count:,} in all, {size}B each"
    yield f"  kept: {', '.join(_kept(config.checkpoint))}"


def _kept(checkpoint: CheckpointConfig) -> Iterator[str]:
    if checkpoint.keep_last is None:
        yield "all"
        return
    yield "the newest" if checkpoint.keep_last == 1 else f"the {checkpoint.keep_last:,} newest"
    if checkpoint.keep_every_steps:
        yield f"those of every {checkpoint.keep_every_steps:,} steps"
    yield "one more while it is written"


def _stability(config: RunConfig) -> Iterator[str]:
    """What each rule of the guard does, and after how many steps in a row."""
    yield f"Stability{'in a row':>26}  actions"
    for name, rule in config.stability.rules.items():
        yield f"  {name:24}{rule.in_a_row:9,}  {', '.join(rule.actions) or 'none'}"
