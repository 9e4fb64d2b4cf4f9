"""A few layers of GLM-130B's kind on one GPU: what PyTorch holds there against the plan.

Written without a GPU and not run yet: the bounds are what the plan claims, not what was seen.
"""

import numpy as np
import pytest
import torch

from glm130b.config.hardware import ACCELERATORS
from glm130b.config.sections import RunConfig
from glm130b.data.objectives.row import Row, Segment
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.plan.kernels import gpu_kernels
from glm130b.plan.memory import StageMemory, memory_per_stage
from tests.harness.kept_tensors import KeptTensors, storage_bytes
from tests.harness.synthetic import small_config
from tests.harness.training import live_run

pytestmark = pytest.mark.gpu

S, V, ROWS = 2048, 32000, 4
SIZES = {"num_layers": 4, "hidden_size": 4096, "num_attention_heads": 32, "ffn_hidden_size": 10944, "vocab_size": V}
"""A billion parameters, about 20 GB in all."""


class LongRows:
    """Rows of one segment: half a context, half a target."""

    def __getitem__(self, sample_index: int) -> Row:
        tokens = np.random.default_rng(sample_index).integers(V, size=S + 1)
        half, ones = S // 2, np.arange(1, S + 1)
        positions, is_target = np.arange(S), np.arange(S) >= half
        blocks = np.where(is_target, ones - half, 0)
        segments = (Segment(0, half, half),)
        return Row(tokens[:-1], tokens[1:], is_target, positions, blocks, segments, "gmask", "english")


def config_of(recompute: str) -> RunConfig:
    return small_config(
        model=SIZES,
        data={"sequence_length": S},
        objective={"samples_per_row": 1},
        batch={"micro_size": 1, "global_size": ROWS},
        evaluation={"samples": ROWS},
        precision={"dtype": "bf16"},
        parallel={"recompute": recompute},
    )


def plan_of(config: RunConfig) -> StageMemory:
    kernels = gpu_kernels(config, ACCELERATORS["a100-80g"])
    (planned,) = memory_per_stage(config, data_size=1, micro_batches=ROWS, kernels=kernels)
    return planned


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_memory(recompute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second step: what stays, what autograd keeps, and the allocator's peak, which has the rest in it."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "0")  # a job of one: any free port
    monkeypatch.setenv("LOCAL_RANK", "0")  # DeepSpeed asks for it
    config = config_of(recompute)
    planned = plan_of(config)
    run = live_run(config, Launch(rank=0, local_rank=0, world_size=1), LongRows())
    try:
        progress, _ = run.take_steps(1)
        parameters = list(run.stage.parameters())
        states = [value for part in run.engine.fragments() for value in part.state.values()]
        torch.cuda.reset_peak_memory_stats()
        with KeptTensors(parameters, logits_columns=V) as kept:
            run.take_steps(1, progress)
        assert planned.weights == pytest.approx(storage_bytes(parameters), rel=0.035)
        assert planned.optimizer == pytest.approx(storage_bytes(states), rel=0.035)
        assert planned.activations + planned.logits == pytest.approx(kept.peak, rel=0.05)
        assert planned.total - planned.reserve == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1)
    finally:
        disconnect()
