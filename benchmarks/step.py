"""Training steps of a few layers as wide as GLM-130B's, in one process, by the product's own parts.

    python benchmarks/step.py                       # 4 layers, hidden 12288, bf16: needs a GPU of 141 GB
    python benchmarks/step.py --layers 2 --hidden 512 --sequence 256 --vocabulary 1024 --dtype fp32     # a CPU

Random weights and tokens, [gMASK] rows half context, half target. FLOPs and MFU by PaLM's convention (Chowdhery et al.
2022, appendix B): the matrix products of the model, attention as if every query saw the whole row, recomputation not
counted. The vocabulary is small because its share of a step is that of 4 layers, not of 70.
"""

import resource
import statistics
from argparse import ArgumentParser, Namespace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from glm130b.config.derived import model_flops_per_sample, num_parameters
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment

if TYPE_CHECKING:
    import torch


def main() -> None:
    options = _options()
    config = _config(options)
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))  # before torch is imported
    _measure(config, options)


def _measure(config: RunConfig, options: Namespace) -> None:
    from machine import describe_machine, now, peak_tflops

    from glm130b.data.loader import Loader
    from glm130b.parallel.device import open_device
    from glm130b.parallel.pipeline import Pipeline
    from glm130b.parallel.placement import build_stage
    from glm130b.parallel.topology import connect, disconnect
    from glm130b.parallel.zero import ZeroEngine
    from glm130b.training.journal import Journal
    from glm130b.training.meter import Meter
    from glm130b.training.progress import Progress
    from glm130b.training.schedules import Schedules
    from glm130b.training.stability.guard import Guard
    from glm130b.training.stability.watch import Watch
    from glm130b.training.stepper import Stepper

    device = open_device(local_rank=0)
    topology = connect(config.parallel, device=device, rank=0, world_size=1, timeout=timedelta(minutes=10))
    stage = build_stage(config, topology, initialize=False)
    _fill(stage)
    engine = ZeroEngine(config, stage, topology)
    schedules = Schedules(config)
    loader = Loader(
        RandomRows(options.sequence, options.vocabulary),
        config,
        steps_from=schedules.steps_from,
        data_rank=0,
        data_size=1,
        pin_memory=device.type == "cuda",
    )
    stepper = Stepper(
        config,
        loader=loader,
        pipeline=Pipeline(stage, engine, topology, sequence_length=options.sequence),
        engine=engine,
        schedules=schedules,
        watch=Watch(Guard(config.stability, schedules=schedules), Journal(None)),
        topology=topology,
        meter=Meter(config, loader=loader, topology=topology, hosts=["here"]),
    )
    (chunk,) = stage
    print(f"machine: {describe_machine(device)}")
    print(
        f"{num_parameters(config.model) / 1e9:.3f} B parameters, {options.dtype}, recompute {options.recompute}, "
        f"{chunk.kernels.describe()}"
    )
    progress, seconds = Progress(), []
    for step in range(options.warmup + options.steps):
        started = now(device)
        progress, record = stepper.step(progress)
        taken = now(device) - started
        print(f"step {step + 1}: {taken:.3f} s, loss {record.values['loss']:.3f}", flush=True)
        if step >= options.warmup:
            seconds.append(taken)
    _report(config, statistics.median(seconds), device, options.peak_tflops or peak_tflops(device))
    disconnect()


def _report(config: RunConfig, seconds: float, device: "torch.device", peak: float | None) -> None:
    rate = model_flops_per_sample(config) * config.batch.global_size / seconds / 1e12
    tokens = config.batch.global_size * config.data.sequence_length
    utilisation = f"{rate / peak:.1%} of {peak:g} TFLOP/s" if peak else "unknown peak; give --peak-tflops"
    print(f"step time        {seconds:.4f} s (median)")
    print(f"tokens/s         {tokens / seconds:.1f}")
    print(f"model TFLOP/s    {rate:.4f}")
    print(f"MFU              {utilisation}")
    print(f"peak memory      {_peak_bytes(device) / 2**30:.2f} GiB")


def _peak_bytes(device: "torch.device") -> int:
    """Of a GPU what tensors took, of a CPU the whole process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fill(stage: Any) -> None:
    """Plausible weights, drawn where they are: the product draws on the CPU, which takes minutes at this width."""
    import torch

    with torch.no_grad():
        for name, parameter in stage.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.006)
            else:
                parameter.fill_(float(name.endswith("weight")))


class RandomRows:
    """Rows by sample index, as the product's data set gives them."""

    def __init__(self, length: int, vocabulary: int) -> None:
        self._length = length
        self._vocabulary = vocabulary

    def __getitem__(self, sample_index: int) -> Any:
        import numpy as np

        from glm130b.data.objectives.row import Row, Segment

        context = self._length // 2
        tokens = np.random.default_rng(sample_index).integers(self._vocabulary, size=self._length + 1)
        positions = np.arange(self._length)
        return Row(
            tokens=tokens[:-1],
            targets=tokens[1:],
            loss_mask=positions >= context,
            positions=positions,
            block_positions=np.maximum(positions - context + 1, 0),
            segments=(Segment(0, context, self._length - context),),
            objective="gmask",
            source="random",
        )


def _config(options: Namespace) -> RunConfig:
    samples = options.global_size * (options.warmup + options.steps)
    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "train_samples": samples,
            "model": {
                "num_layers": options.layers,
                "hidden_size": options.hidden,
                "num_attention_heads": options.heads or max(1, options.hidden // 128),
                "ffn_hidden_size": options.ffn or 8 * options.hidden // 3,
                "vocab_size": options.vocabulary,
                "embedding_gradient_shrink": {"alpha": {"start": 0.1, "end": 0.1}},
            },
            "data": {
                "tokenizer": "",
                "sequence_length": options.sequence,
                "text": {"random": {"path": "", "weight": {"start": 1, "end": 1}}},
                "instructions": {},
            },
            "objective": {"instruction_share": {"start": 0, "end": 0}, "mask_share": {"start": 0, "end": 0}},
            "batch": {"micro_size": options.micro_size, "global_size": options.global_size},
            "optimizer": {
                "name": options.optimizer,
                "learning_rate": {"peak": 1e-5, "minimum": 1e-5, "warmup_samples": 0, "decay_samples": samples},
            },
            "precision": {"dtype": options.dtype},
            "parallel": {"tensor": 1, "pipeline": 1, "data": 1, "recompute": options.recompute},
            "kernels": {"attention": options.attention, "norm": options.norm, "pointwise": options.pointwise},
            "evaluation": {"every_steps": 1, "samples": 1},
            "checkpoint": {"every_steps": 1},
            "logging": {"wandb": "disabled"},
        }
    )


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=12288)
    parser.add_argument("--heads", type=int, help="default: 128 dimensions each")
    parser.add_argument("--ffn", type=int, help="default: 8/3 of the hidden size")
    parser.add_argument("--sequence", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--micro-size", type=int, default=1)
    parser.add_argument("--global-size", type=int, default=16, help="rows in a step")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw", help="sgd keeps 8 bytes less each")
    parser.add_argument("--recompute", choices=("none", "selective", "full"), default="none")
    parser.add_argument("--attention", default="auto", help="as kernels.attention")
    parser.add_argument("--norm", default="auto", help="as kernels.norm")
    parser.add_argument("--pointwise", default="auto", help="as kernels.pointwise")
    parser.add_argument("--warmup", type=int, default=2, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="the device's peak, for a GPU that is not known")
    return parser.parse_args()


if __name__ == "__main__":
    main()
