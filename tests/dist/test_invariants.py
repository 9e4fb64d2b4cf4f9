"""One element is changed in each kind of place, on one rank: the message names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.sharding import EMBEDDING, parameter_shards
from glm130b.parallel.topology import disconnect
from glm130b.training.invariants import InvariantError, Invariants
from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from tests.harness.journal import Told
from tests.harness.pool import run_distributed
from tests.harness.stage import in_layout
from tests.harness.synthetic import small_config
from tests.harness.training import LiveRun, live_run

MATRIX, NORM = "decoder.layers.3.mlp.linear_fc2.weight", "decoder.final_layernorm.weight"
RECORD = cast(Record, cast(Any, None))

CASES: dict[str, tuple[tuple[int, ...], str, str]] = {
    "a matrix": ((6,), MATRIX, "weight"),
    "a norm": ((5, 7), NORM, "weight"),  # alike over the data axis
    "the tied copy": ((4, 6), EMBEDDING, "weight"),
    "a master": ((5, 7), NORM, "master"),
    "a moment": ((5, 7), NORM, "exp_avg"),
    "a moment that is not finite": ((4, 6), MATRIX, "exp_avg_sq"),
}
"""The ranks whose first element is changed, the parameter, and which of its tensors. Ranks 4 to 7 are the last stage:
tensor rank 0 on 4 and 6, tensor rank 1 on 5 and 7."""


def findings(launch: Launch, config: RunConfig) -> dict[str, list[str]]:
    """By case, what this rank found."""
    run, told = live_run(config, launch), Told()
    hook = Invariants(run.stage, run.engine, run.topology, every_steps=2, journal=told)
    hook.before_training(Progress())
    progress, _ = run.take_steps(3)
    hook.after_step(Progress(step=4), RECORD)
    found = {}
    for case, (ranks, name, kind) in CASES.items():
        with changed(run, name if launch.rank in ranks else "nothing", kind, is_nan="finite" in case):
            hook.after_step(Progress(step=5), RECORD)  # not checked
            with pytest.raises(InvariantError) as caught:
                hook.after_step(Progress(step=6), RECORD)
        found[case] = list(caught.value.findings)
        assert told.events.pop() == Event("invariant broken", 6, str(caught.value))
        hook.after_step(progress, RECORD)
    hook.after_step(Progress(step=8), RECORD)  # all is well again
    disconnect()
    return found


@contextmanager
def changed(run: LiveRun, name: str, kind: str, *, is_nan: bool) -> Iterator[None]:
    """The first element of one tensor of this rank."""
    for tensor in (tensors := list(tensors_of(run, name, kind))):
        kept = tensor[:1].clone()
        tensor[:1] = torch.nan if is_nan else 2 * kept + 1
    yield
    for tensor in tensors:
        tensor[:1] = kept


def tensors_of(run: LiveRun, name: str, kind: str) -> Iterator[Tensor]:
    parameter = next((s.parameter for s in parameter_shards(run.stage) if s.name == name), None)
    if parameter is not None and kind == "weight":
        yield parameter.detach().view(-1)
    for fragment in run.engine.fragments():
        if fragment.parameter is parameter and kind in fragment.state:
            yield fragment.state[kind]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_change_on_one_rank_is_named(dtype: str) -> None:
    config, world_size = in_layout(small_config(precision={"dtype": dtype}), "TP2 PP2 DP2")
    ranks = run_distributed(findings, world_size, config, timeout=150)
    assert all(rank == ranks[0] for rank in ranks)  # everyone ends for the same reason
    found = ranks[0]
    assert f"{MATRIX} on rank 6 differs from that on rank 4" in found["a matrix"]
    assert {name for line in found["a matrix"] for name in [line.split()[0]]} == {MATRIX}
    assert f"{NORM} on rank 5 differs from that on rank 4" in found["a norm"]
    assert f"{NORM} on rank 7 differs from that on rank 6" in found["a norm"]
    assert f"{EMBEDDING} on rank 4 differs from that on rank 0" in found["the tied copy"]
    assert f"{EMBEDDING} on rank 6 differs from that on rank 2" in found["the tied copy"]
    owner = [line for line in found["a master"] if "rounding" in line]
    assert owner in ([f"{NORM} on rank {rank} is not the rounding of its master"] for rank in (5, 7))
    assert any(line.startswith(f"master of {NORM} on rank {owner[0].split()[3]} ") for line in found["a master"])
    (moment,) = found["a moment"]
    assert moment.startswith((f"exp_avg of {NORM} on rank 5 differs", f"exp_avg of {NORM} on rank 7 differs"))
    (moment,) = found["a moment that is not finite"]
    assert moment in [f"exp_avg_sq of {MATRIX} on rank {rank} is not finite" for rank in (4, 6)]
