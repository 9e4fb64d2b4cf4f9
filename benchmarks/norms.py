"""What reading the norms of gradients and weights adds to a step: seconds inside the readings, and their share of it.

    python benchmarks/norms.py                      # 4 layers of width 512 and 16384 words, one process
    python benchmarks/norms.py --dtype fp16 --rows 32

The product's own stage, schedule and ZeRO engine; a reading is timed inside the step that it is part of, so that a busy
machine slows both. Each second step reads the weights, too.
"""

import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, prepare_environment

if TYPE_CHECKING:
    import torch

Seconds = dict[str, float]
"""By what was done in it."""


def main() -> None:
    options = _options()
    prepare_environment(Launch(rank=0, local_rank=0, world_size=1))  # before torch is imported
    from machine import describe_machine

    from glm130b.parallel.device import open_device

    device = open_device(local_rank=0)
    print(f"machine: {describe_machine(device)}")
    steps = _measure(_config(options), device, options.steps)
    print(f"{'step':<28}{statistics.median(step['step'] for step in steps):>10.4f} s (median)")
    for name in ("norms of the gradient", "input side as it arises", "weights and their change"):
        readings = [(step[name], step[name] / step["step"]) for step in steps if name in step]
        seconds, shares = (statistics.median(values) for values in zip(*readings, strict=True))
        print(f"{name:<28}{seconds:>10.4f} s {shares:>8.2%} of its step")


def _measure(config: RunConfig, device: "torch.device", count: int) -> list[Seconds]:
    """Seconds of each step after the first two."""
    from machine import now
    from step import RandomRows

    from glm130b.data.batches import micro_batches
    from glm130b.model.gradient_shrink import ShrinkFactors
    from glm130b.parallel.embedding_sides import SidesOnOneStage
    from glm130b.parallel.gradient_norms import GradientReader
    from glm130b.parallel.pipeline import Pipeline
    from glm130b.parallel.placement import build_stage
    from glm130b.parallel.topology import connect, disconnect
    from glm130b.parallel.weight_norms import WeightReader
    from glm130b.parallel.zero import ZeroEngine
    from glm130b.training.objective_loss import forward_step

    topology = connect(config.parallel, device=device, rank=0, world_size=1, timeout=timedelta(minutes=10))
    stage, batch = build_stage(config, topology), config.batch
    engine = ZeroEngine(config, stage, topology)
    pipeline = Pipeline(stage, engine, topology, sequence_length=config.data.sequence_length)
    rows: Any = RandomRows(config.data.sequence_length, config.model.vocab_size)
    print(f"{sum(p.numel() for p in stage.parameters()) / 1e6:.1f} M parameters, {config.precision.dtype}")
    steps = []
    for step in range(count + 2):
        seconds: Seconds = {}
        clock = lambda: now(device)  # noqa: E731
        with (
            _timed(GradientReader, "read", seconds, "norms of the gradient", clock),
            _timed(SidesOnOneStage, "_gather", seconds, "input side as it arises", clock),
            _timed(WeightReader, "__init__", seconds, "weights and their change", clock),
            _timed(WeightReader, "updated", seconds, "weights and their change", clock),
            _timed(WeightReader, "statistics", seconds, "weights and their change", clock),
        ):
            started = clock()
            pipeline.train(
                forward_step(device, ShrinkFactors(0.1, 0.1)),
                micro_batches(
                    rows,
                    first_sample=step * batch.global_size,
                    batch_size=batch.global_size,
                    micro_size=batch.micro_size,
                    data_rank=0,
                    data_size=1,
                ),
                num_micro_batches=batch.global_size // batch.micro_size,
                micro_size=batch.micro_size,
            )
            engine.step(1e-4, read_weights=step % 2 == 1)
            seconds["step"] = clock() - started
        steps.append(seconds)
    disconnect()
    return steps[2:]


@contextmanager
def _timed(owner: type, method: str, seconds: Seconds, name: str, clock: Callable[[], float]) -> Iterator[None]:
    """Add the time inside a method to ``seconds[name]``, for as long as the block lasts."""
    original = getattr(owner, method)

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = clock()
        result = original(*arguments, **keywords)
        seconds[name] = seconds.get(name, 0.0) + clock() - started
        return result

    setattr(owner, method, timed)
    yield
    setattr(owner, method, original)


def _config(options: Namespace) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "benchmark",
            "train_samples": options.rows * 100,
            "model": {
                "num_layers": options.layers,
                "hidden_size": options.hidden,
                "num_attention_heads": max(1, options.hidden // 64),
                "ffn_hidden_size": 8 * options.hidden // 3,
                "vocab_size": options.vocabulary,
                "embedding_gradient_shrink": {"alpha": {"start": 0.1, "end": 0.1}},
            },
            "data": {"tokenizer": "", "sequence_length": options.sequence, "text": {}, "instructions": {}},
            "objective": {"instruction_share": {"start": 0, "end": 0}, "mask_share": {"start": 0, "end": 0}},
            "batch": {"micro_size": options.micro_size, "global_size": options.rows},
            "optimizer": {
                "learning_rate": {"peak": 1e-4, "minimum": 1e-4, "warmup_samples": 0, "decay_samples": options.rows}
            },
            "precision": {"dtype": options.dtype},
            "parallel": {"tensor": 1, "pipeline": 1, "data": 1},
            "evaluation": {"every_steps": 1, "samples": 1},
            "checkpoint": {"every_steps": 1},
            "logging": {"wandb": "disabled"},
        }
    )


def _options() -> Namespace:
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--micro-size", type=int, default=2)
    parser.add_argument("--rows", type=int, default=16, help="in a step")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="bf16")
    parser.add_argument("--steps", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    main()
