"""``glm130b plan --hardware`` against published step times.

    python benchmarks/plan.py
    python benchmarks/plan.py --efficiency 0.6        # another share of the peak for large matrix products

Every run is described as its paper does and planned with the same assumptions. GPT
models are laid over ``configs/families/gpt2-xl.yaml``. Their programs differed from ours: attention wrote its scores
out, gradients were summed inside the matrix product, pointwise kernels were others.
"""

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.plan.cluster import read_hardware
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.search import search
from glm130b.plan.step_time import StepModel

_CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Published:
    """A measured step."""

    name: str
    config: RunConfig
    hardware: str
    batch_size: int
    seconds: float


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--efficiency", type=float)
    options = parser.parse_args()
    print(f"{'run':34}{'published':>10}{'planned':>10}{'off by':>9}{'MFU':>8}")
    for run in (*_glm_130b(), *_korthikanti()):
        cluster = read_hardware(run.hardware, efficiency=options.efficiency)
        data_size = run.config.parallel.data
        assert isinstance(data_size, int)
        model = StepModel(run.config, data_size, cluster, gpu_kernels(run.config, cluster.accelerator))
        seconds = model.step(run.batch_size).total
        utilization = model.model_utilization(run.batch_size)
        print(f"{run.name:34}{run.seconds:9.2f}s{seconds:9.2f}s{seconds / run.seconds - 1:+9.1%}{utilization:8.1%}")
    _time_the_search()


def _glm_130b() -> Iterator[Published]:
    """The GLM-130B paper (Zeng et al. 2022) and its training log; 96 machines of 8 A100 40 GB."""
    config = load_config(_CONFIGS / "glm-130b.yaml")
    for batch_size, seconds in ((4224, 88.5), (6144, 122.5)):
        yield Published(f"GLM-130B, batch {batch_size}", config, "a100-40g", batch_size, seconds)


def _korthikanti() -> Iterator[Published]:
    """Korthikanti et al. 2022, tables 3 and 5; machines of 8 A100 80 GB, eight network cards each. From memory, not
    checked against the paper."""
    models = (
        # name, layers, hidden, heads, tensor, pipeline, chunks, micro, batch, full recomputation, selective
        ("22B", 48, 6144, 64, 8, 1, 1, 4, 4, 1.42, 1.10),
        ("175B", 96, 12288, 96, 8, 8, 3, 1, 64, 18.13, 13.75),
        ("530B", 105, 20480, 128, 8, 35, 3, 1, 280, 49.05, 37.83),
        ("1T", 128, 25600, 160, 8, 64, 1, 1, 512, 94.42, 71.49),
    )
    for name, layers, hidden, heads, tensor, pipeline, chunks, micro, batch, full, selective in models:
        sizes = {
            "model.num_layers": layers,
            "model.hidden_size": hidden,
            "model.num_attention_heads": heads,
            "model.ffn_hidden_size": 4 * hidden,
            "model.vocab_size": 51200,
            "model.max_positions": 2048,
            "model.attention_dropout": 0.1,
            "model.hidden_dropout": 0.1,
            "data.sequence_length": 2048,
            "precision": "{dtype: fp16, accumulate_gradients_in_fp32: false}",
            "batch": f"{{micro_size: {micro}, global_size: {batch}}}",
            "evaluation.samples": batch,
            "parallel.tensor": tensor,
            "parallel.pipeline": pipeline,
            "parallel.virtual_stages": chunks,
            "parallel.data": 1,
        }
        for recompute, cut, seconds in (("full", "false", full), ("selective", "true", selective)):
            changes = sizes | {"parallel.recompute": recompute, "parallel.sequence_parallel": cut}
            overrides = [f"{key}={value}" for key, value in changes.items()]
            config = load_config(_CONFIGS / "families" / "gpt2-xl.yaml", overrides)
            yield Published(f"GPT {name}, {recompute}", config, "a100-80g,network=25", batch, seconds)


def _time_the_search() -> None:
    config = load_config(_CONFIGS / "glm-130b.yaml")
    without_ramp = config.model_copy(update={"batch": config.batch.model_copy(update={"ramp": None})})
    for name, searched in (("as published", config), ("without the batch ramp", without_ramp)):
        start = time.perf_counter()
        found = search(searched, read_hardware("a100-40g"), world_size=768)
        print(f"search over 768 GPUs, {name}: {found.num_tried:,} layouts in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
