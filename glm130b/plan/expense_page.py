"""What a run takes of given hardware, as blocks of the page: memory, step time, the whole run, what was assumed."""

from collections.abc import Iterator
from dataclasses import replace

from glm130b.config import derived
from glm130b.config.sections import RunConfig
from glm130b.plan.cluster import ACHIEVED_BANDWIDTH, Cluster
from glm130b.plan.cost import cost
from glm130b.plan.kernels import AssumedKernels, gpu_kernels
from glm130b.plan.layer_time import ATTENTION_EFFICIENCY
from glm130b.plan.memory import FRAGMENTATION, RESERVE_BYTES, TIGHT, StageMemory, memory_per_stage
from glm130b.plan.step_time import StepModel, StepTime
from glm130b.plan.wording import duration, gib, long_duration, paragraph, short, shown

_SPREAD = 0.1
"""The cost is told for this much less and more efficiency, too."""
_LAUNCHES_SECONDS = 1e-3
"""What a layer's hundred kernels take to be launched from Python, forward and backward, roughly."""


def expense_blocks(config: RunConfig, data_size: int, cluster: Cluster) -> Iterator[Iterator[str]]:
    """Memory, time and cost of a valid config on ``cluster``."""
    kernels = gpu_kernels(config, cluster.accelerator)
    model = StepModel(config, data_size, cluster, kernels)
    yield _memory(config, data_size, cluster, kernels)
    yield _time(model)
    yield _whole_run(model)
    yield _assumptions(cluster, kernels)


def _memory(config: RunConfig, data_size: int, cluster: Cluster, kernels: AssumedKernels) -> Iterator[str]:
    batch_size = config.batch.global_size
    micro_batches = derived.num_micro_batches(config, batch_size=batch_size, data_size=data_size)
    stages = memory_per_stage(config, data_size=data_size, micro_batches=micro_batches, kernels=kernels)
    room = cluster.accelerator.memory_bytes
    yield f"Memory of one GPU in GiB: {cluster.accelerator.name} has {gib(room)}"
    yield "  stage weights  grads  optim activations logits   temp buffers reserve   total"
    for index in shown(len(stages), most=16):
        yield "  ..." if index is None else _memory_row(index, stages[index])
    fullest = max(range(len(stages)), key=lambda index: stages[index].total)
    total = stages[fullest].total
    share = f"{gib(total)} of {gib(room)} GiB, {total / room:.0%}"
    if total <= room:
        yield f"  it fits{', but tight' if total > TIGHT * room else ''}: stage {fullest} is the fullest with {share}"
    else:
        yield f"  IT DOES NOT FIT: stage {fullest} needs {share}; --search finds what does"
    if stages[fullest].on_host:
        hosted = cluster.gpus_per_node * max(stage.on_host for stage in stages)
        yield f"  the optimizer's {gib(hosted)} GiB are in the memory of each machine"


def _memory_row(index: int, stage: StageMemory) -> str:
    return (
        f"  {index:<5}{gib(stage.weights):>8}{gib(stage.gradients):>7}{gib(stage.optimizer):>7}"
        f"{gib(stage.activations):>12}{gib(stage.logits):>7}{gib(stage.temporary):>7}"
        f"{gib(stage.buffers):>8}{gib(stage.reserve):>8}{gib(stage.total):>8}"
    )


def _time(model: StepModel) -> Iterator[str]:
    batch_size = model.config.batch.global_size
    step = model.step(batch_size)
    yield f"Time of a full step on {model.num_gpus:,} GPUs, of the busiest stage"
    for name, took in _parts(step):
        if took:
            yield f"  {name:48}{duration(took):>12}{took / step.total:8.1%}"
    yield f"  {'a step':48}{duration(step.total):>12}"
    samples = batch_size / step.total
    tokens = derived.tokens_per_step(model.config, batch_size) / step.total
    yield f"  {samples:,.4g} samples/s, {tokens:,.0f} tokens/s, {tokens / model.num_gpus:,.0f} of a GPU"
    achieved = model.model_utilization(batch_size)
    peak = model.cluster.accelerator.peak_flops(model.config.precision.dtype)
    yield (
        f"  MFU {achieved:.1%} ({achieved * peak / 1e12:,.0f} TFLOP/s a GPU), "
        f"HFU {model.hardware_utilization(batch_size):.1%}, bubble {step.bubble_share:.1%} of the pipeline"
    )
    if model.layer_seconds < _LAUNCHES_SECONDS:
        yield "  a real step is slower: layers this small wait for kernels to be launched"


def _parts(step: StepTime) -> Iterator[tuple[str, float]]:
    work = step.work
    yield "matrix products", work.matrices
    yield "attention", work.attention
    yield "norms, activations, dropouts, loss", work.pointwise
    yield "adding up gradients", work.gradient_sums
    yield "recomputation", work.recomputation
    yield "tensor axis: all-reduces, gathers", work.tensor_communication
    yield "pipeline axis: messages", work.pipeline_communication
    yield "pipeline bubble", step.bubble
    yield "data axis: gradients reduced, weights gathered", step.data_communication
    yield "tied embedding between first and last stage", step.embedding_communication
    yield "optimizer", step.optimizer


def _whole_run(model: StepModel) -> Iterator[str]:
    spent, price, efficiency = cost(model), model.cluster.dollars_per_hour, model.cluster.efficiency
    rent = "--price for dollars" if price is None else f"${price:g} a GPU hour"
    yield f"The run: {spent.steps:,} steps, {short(spent.tokens)}tokens, {rent}"
    yield f"  {'if large products reach':34}{'days':>12}{'GPU hours':>15}" + f"{'dollars':>16}" * (price is not None)
    for reached in (efficiency - _SPREAD, efficiency, efficiency + _SPREAD):
        if 0 < reached <= 1:
            spent = cost(replace(model, cluster=replace(model.cluster, efficiency=reached)))
            name = f"{reached:.0%} of the peak" + ", as above" * (reached == efficiency)
            dollars = "" if spent.dollars is None else f"{spent.dollars:16,.0f}"
            yield f"  {name:34}{spent.days:12,.1f}{spent.gpu_hours:15,.0f}{dollars}"
    yield "  without checkpoints, evaluations, restarts, and machines that stand by"
    interval = model.config.checkpoint.every_steps * model.step(model.config.batch.global_size).total
    yield f"  a checkpoint every {long_duration(interval)}: a failure loses half of that on average"


def _assumptions(cluster: Cluster, kernels: AssumedKernels) -> Iterator[str]:
    gpu = cluster.accelerator
    yield "Assumed"
    yield from paragraph(
        f"{gpu.peak_half / 1e12:g} TFLOP/s in half and {gpu.peak_single / 1e12:g} in single precision, memory "
        f"{gpu.memory_bandwidth / 1e9:,g} GB/s, {cluster.gpus_per_node} GPUs a machine with "
        f"{gpu.node_bandwidth / 1e9:g} GB/s each inside it and {gpu.network_bandwidth / 1e9:g} to others; "
        f"{ACHIEVED_BANDWIDTH:.0%} of every bandwidth is reached"
    )
    yield from paragraph(
        f"large matrix products reach {cluster.efficiency:.0%} of the peak (--efficiency), attention "
        f"{ATTENTION_EFFICIENCY:.0%} of that; nothing overlaps, so a tuned run may be faster"
    )
    yield from paragraph(kernels.describe())
    yield from paragraph(
        f"reserve: {gib(RESERVE_BYTES)} GiB for CUDA and NCCL, {FRAGMENTATION:.0%} of gradients, activations, logits "
        "and temporary tensors for fragmentation"
    )
    yield from paragraph("not measured on these GPUs; docs/planning.md says what each number rests on")
