"""What ``glm130b plan`` says of memory, against the tensors of real models: every category within 3.5 %.

On the CPU and its kernels (``plan.kernels.cpu_kernels``); a plan for a GPU differs from that by what
``plan/activations.py`` lists. Temporary tensors and buffers are estimates: only the peak of a whole step is held,
loosely. The reserve is held by nothing.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest

from glm130b.config.derived import least_world_size
from glm130b.config.layout_rules import layout_problems
from glm130b.config.sections import RunConfig
from glm130b.plan.kernels import cpu_kernels
from glm130b.plan.memory import StageMemory, memory_per_stage
from tests.harness.kept_tensors import measure_memory, measure_peak
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config

WITHIN = 0.035
WHOLE_WITHIN = 0.3
"""Of the peak, reserve left out: DeepSpeed's step in fp16 takes up to a fifth more than planned, the others up to a
tenth less. Models this small have mostly what the step itself makes."""
_SIZES = {
    "num_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 16,
    "ffn_hidden_size": 640,
    "vocab_size": 1024,
}


@dataclass(frozen=True)
class Case:
    name: str
    parallel: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    dtype: str = "fp32"
    in_fp32: bool = True
    optimizer: str = "adamw"

    @property
    def config(self) -> RunConfig:
        return small_config(
            model={**small_config().model.model_dump(), **_SIZES, **self.model},
            batch={"micro_size": 1, "global_size": 8},
            precision={"dtype": self.dtype, "accumulate_gradients_in_fp32": self.in_fp32},
            optimizer={**small_config().optimizer.model_dump(), "name": self.optimizer},
            parallel=self.parallel,
        )

    def __str__(self) -> str:
        return self.name


DROPPED = {"hidden_dropout": 0.1}

EVERY_DAY = [
    Case("one process"),
    Case(
        "tensor 2, sequence cut, selective, dropout, bf16",
        {"tensor": 2, "sequence_parallel": True, "recompute": "selective"},
        DROPPED,
        dtype="bf16",
    ),
    Case("pipeline 2, full, fp16 sums", {"pipeline": 2, "recompute": "full"}, dtype="fp16", in_fp32=False),
    Case("pipeline 2, two chunks, bf16", {"pipeline": 2, "virtual_stages": 2}, dtype="bf16"),
    Case("data 2, ZeRO 2, fp16", {"data": 2, "zero_stage": 2}, dtype="fp16"),
    Case("data 2, offload, bf16", {"data": 2, "offload_optimizer": True}, dtype="bf16"),
    Case(
        "pre RMSNorm, SwiGLU, shared key heads, no biases, untied",
        model={
            "norm_placement": "pre",
            "normalization": "rmsnorm",
            "ffn": "swiglu",
            "num_key_value_heads": 4,
            "biases": False,
            "tie_embedding": False,
        },
    ),
]
"""Every category and every kind of recomputation, schedule and precision, in ``make test``."""

MORE = [
    Case("one process, fp16", dtype="fp16"),
    Case("one process, bf16 sums, full", {"recompute": "full"}, dtype="bf16", in_fp32=False),
    Case("one process, selective, dropout", {"recompute": "selective"}, DROPPED),
    Case("SGD", optimizer="sgd"),
    Case("tensor 2, dropout", {"tensor": 2}, DROPPED),
    Case("tensor 4, sequence cut, full", {"tensor": 4, "sequence_parallel": True, "recompute": "full"}, dtype="bf16"),
    Case("pipeline 4", {"pipeline": 4}),
    Case("pipeline 4, selective", {"pipeline": 4, "recompute": "selective"}, dtype="bf16"),
    Case(
        "pipeline 2, uneven, two chunks, full",
        {"pipeline": 2, "virtual_stages": 2, "embedding_and_head_count_as_layers": True, "recompute": "full"},
        {"num_layers": 6},
    ),
    Case("tensor 2, pipeline 2", {"tensor": 2, "pipeline": 2, "sequence_parallel": True}, dtype="bf16"),
    Case("pipeline 2, data 2", {"pipeline": 2, "data": 2}, dtype="fp16"),
    Case("tensor 2, data 2, ZeRO 2", {"tensor": 2, "data": 2, "zero_stage": 2}, dtype="bf16"),
    Case(
        "sandwich, plain GELU, learned pairs of positions, embedding norm",
        model={
            "norm_placement": "sandwich",
            "ffn": "gelu",
            "positions": "learned_2d",
            "max_positions": 32,
            "embedding_norm": True,
        },
    ),
    Case(
        "parallel block, ALiBi",
        model={"norm_placement": "pre", "parallel_block": True, "positions": "alibi"},
        dtype="bf16",
    ),
    Case("post norm, rotary pairs", model={"norm_placement": "post", "positions": "rope_2d"}, dtype="bf16"),
    Case("causal, one head of keys", model={"attention": "causal", "num_key_value_heads": 1}),
]


def plan_of(case: Case) -> tuple[StageMemory, ...]:
    config = case.config
    assert not list(layout_problems(config, None))
    data_size = config.parallel.data
    assert isinstance(data_size, int)
    return memory_per_stage(config, data_size=data_size, micro_batches=8 // data_size, kernels=cpu_kernels(config))


def check(case: Case) -> None:
    config, planned = case.config, plan_of(case)
    for stage, measured in run_distributed(measure_memory, least_world_size(config), config):
        said = vars(planned[stage])
        if config.parallel.offload_optimizer:
            said = said | {"optimizer": said["on_host"]}
        for name, num_bytes in measured.items():
            assert said[name] == pytest.approx(num_bytes, rel=WITHIN), f"{name} of stage {stage}"


@pytest.mark.parametrize("case", EVERY_DAY, ids=str)
def test_memory(case: Case) -> None:
    check(case)


@pytest.mark.full
@pytest.mark.parametrize("case", MORE, ids=str)
def test_memory_of_more(case: Case) -> None:
    check(case)


@pytest.mark.full
@pytest.mark.parametrize("case", [case for case in EVERY_DAY if "data" not in case.parallel], ids=str)
def test_the_peak_of_a_step(case: Case) -> None:
    """Without a data axis: what the profiler sees of gloo's reductions differs from run to run."""
    config, planned = case.config, plan_of(case)
    for stage, measured in run_distributed(measure_peak, least_world_size(config), config):
        said = planned[stage]
        assert said.total - said.reserve + said.on_host == pytest.approx(measured, rel=WHOLE_WITHIN), f"stage {stage}"
