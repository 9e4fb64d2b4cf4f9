"""No layout changes the model: losses and every gradient norm of twenty steps, of layers, kinds of parameters and both
sides of the embedding, against one process.

One process is itself held against plain PyTorch in ``test_against_reference.py`` and ``test_family.py``.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import pytest

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel import zero
from tests.harness.pool import run_distributed
from tests.harness.rounding import loss_bound, norm_bound
from tests.harness.synthetic import small_config
from tests.harness.training import StepNumbers, train_steps

NUM_STEPS = 20


@dataclass(frozen=True)
class Layout:
    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    virtual: int = 1
    uneven: bool = False
    sequence: bool = False
    recompute: str = "none"
    micro: int = 2
    zero: int = 1
    offload: bool = False
    layers: int = 4

    @property
    def world_size(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def patience(self) -> int:
        """Seconds that a test of it may take: thirty-two processes, or seventy layers, share a few cores."""
        return 600 if self.world_size > 16 or self.layers > 20 else 300

    def config(self, dtype: str = "fp32") -> RunConfig:
        """The small run so laid out; rows and weights are those of any other layout of as many layers."""
        return small_config(
            model={**small_config().model.model_dump(), "num_layers": self.layers},
            batch={"micro_size": self.micro, "global_size": 8},
            precision={"dtype": dtype, "loss_scale": {"initial_power": 8}},
            parallel={
                "tensor": self.tensor,
                "pipeline": self.pipeline,
                "data": self.data,
                "virtual_stages": self.virtual,
                "embedding_and_head_count_as_layers": self.uneven,
                "sequence_parallel": self.sequence,
                "recompute": self.recompute,
                "zero_stage": self.zero,
                "offload_optimizer": self.offload,
                "reduce_bucket_elements": 10_000,
            },
        )

    def __str__(self) -> str:
        words = [f"TP{self.tensor} PP{self.pipeline} DP{self.data}", f"micro{self.micro}"]
        words += [f"VPP{self.virtual}"] if self.virtual > 1 else []
        words += [word for word in ("uneven", "sequence", "offload") if getattr(self, word)]
        words += [self.recompute] if self.recompute != "none" else []
        return " ".join([*words, *([f"ZeRO{self.zero}"] if self.zero > 1 else [])])


EVERY_DAY = [
    Layout(tensor=2, sequence=True, recompute="selective"),
    Layout(pipeline=2, virtual=2),
    Layout(pipeline=2, uneven=True, virtual=2, layers=6, recompute="full", micro=1),
    Layout(pipeline=4, uneven=True, layers=6),
    Layout(data=2, zero=2),
    Layout(data=2, offload=True, recompute="selective"),
    Layout(tensor=2, data=2, zero=2, recompute="full"),
    Layout(tensor=2, pipeline=2, data=2, virtual=2, sequence=True, recompute="selective", micro=1),
]
"""Every switch at least once, in ``make test``; TP 4 is there in ``test_family.py``."""


def _everything() -> list[Layout]:
    """TP {1, 2, 4} x PP {1, 2, 4} x DP {1, 2}: up to four processes in four dresses that between them have every switch
    on and off, more in the one with the most switches on: thirty-two share a few cores.

    The sequence is split in a dress with selective and in one with full recomputation; under a pipeline, stages are
    uneven without virtual stages and whole, and with both virtual stages and the sequence split.
    """
    layouts = []
    for tensor, pipeline, data in product((1, 2, 4), (1, 2, 4), (1, 2)):
        grid = {"tensor": tensor, "pipeline": pipeline, "data": data}
        dresses = _pipelined(grid) if pipeline > 1 else _flat(grid)
        world_size = tensor * pipeline * data
        layouts += dresses if world_size <= 4 else dresses[:1]
    return [*layouts, Layout(pipeline=8, uneven=True, layers=70, recompute="full")]


def _pipelined(grid: dict[str, int]) -> list[Layout]:
    sequence = grid["tensor"] > 1
    # Two virtual stages to a rank, the embedding and the head among the layers: two or more to each chunk.
    packed = {2: 6, 4: 14}[grid["pipeline"]]
    return [
        Layout(**grid, uneven=True, virtual=2, layers=packed, sequence=sequence, recompute="full", micro=1),
        Layout(**grid, sequence=sequence, recompute="selective", micro=1),
        Layout(**grid, uneven=True, layers=6),
        Layout(**grid, virtual=2, layers=8, micro=1),
    ]


def _flat(grid: dict[str, int]) -> list[Layout]:
    sequence = grid["tensor"] > 1
    return [
        Layout(**grid, offload=True, sequence=sequence, recompute="full"),
        Layout(**grid, zero=2, recompute="full", micro=1),
        Layout(**grid, sequence=sequence, recompute="selective", micro=1),
        Layout(**grid),
    ]


@cache
def one_process(layers: int, dtype: str) -> list[StepNumbers]:
    layout = Layout(layers=layers)
    ranks = run_distributed(train_steps, 1, layout.config(dtype), NUM_STEPS, timeout=layout.patience - 20)
    numbers: list[StepNumbers] = ranks[0]
    # The comparison would be empty if nothing were learned, or the gradient never clipped.
    assert numbers[-1]["loss"] < numbers[0]["loss"] - 0.1
    assert max(step["gradient_norm"] for step in numbers) > layout.config().optimizer.clip_gradient_norm
    return numbers


def check(layout: Layout, dtype: str, *, losses_within: float, norms_within: float) -> None:
    """Every rank's numbers are those of one process; in half precision norms are held in units of the whole norm."""
    expected = one_process(layout.layers, dtype)
    patience = layout.patience - 20
    for rank in run_distributed(train_steps, layout.world_size, layout.config(dtype), NUM_STEPS, timeout=patience):
        for ours, theirs in zip(rank, expected, strict=True):
            norms = [key for key in theirs if "gradient_norm" in key]
            assert len(norms) == layout.layers + 7  # whole, layers, three kinds, embedding and its two sides
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=losses_within)
            unit = 1.0 if dtype == "fp32" else theirs["gradient_norm"]
            for key in norms:
                assert ours[key] == pytest.approx(theirs[key], abs=norms_within * unit), key


@pytest.mark.parametrize("layout", EVERY_DAY, ids=str)
def test_a_layout_changes_nothing(layout: Layout) -> None:
    check(layout, "fp32", losses_within=1e-5, norms_within=1e-5)


@pytest.mark.full
@pytest.mark.parametrize(
    "layout", [pytest.param(layout, marks=pytest.mark.timeout(layout.patience)) for layout in _everything()], ids=str
)
def test_every_layout_changes_nothing(layout: Layout) -> None:
    check(layout, "fp32", losses_within=1e-5, norms_within=1e-5)


HALF_PRECISION = [
    Layout(tensor=2, pipeline=2, data=2, sequence=True, recompute="selective"),
    Layout(pipeline=2, virtual=2, micro=1),
    Layout(data=2, zero=2),
    pytest.param(Layout(tensor=4, recompute="full"), marks=pytest.mark.full),
    pytest.param(Layout(tensor=2, offload=True, sequence=True), marks=pytest.mark.full),
]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("layout", HALF_PRECISION, ids=str)
def test_a_layout_stays_within_rounding_in_half_precision(layout: Layout, dtype: str) -> None:
    losses_within, norms_within = loss_bound(dtype, layout.layers), norm_bound(dtype, layout.layers)
    check(layout, dtype, losses_within=losses_within, norms_within=norms_within)


def train_counting_the_tied_copy(launch: Launch, config: RunConfig, count: int) -> list[StepNumbers]:
    """The last stage's embedding is not known for a copy: its gradient counts twice in the norm."""
    with pytest.MonkeyPatch.context() as patch:
        owned = zero._owned
        patch.setattr(zero, "_owned", lambda shard, topology: owned(replace(shard, is_tied_copy=False), topology))
        return train_steps(launch, config, count)


def largest_changes(ours: list[StepNumbers], theirs: list[StepNumbers]) -> tuple[float, float]:
    """Of a loss, absolute, and of a gradient norm, relative, over the steps that ``check`` looks at."""
    steps = list(zip(ours, theirs, strict=True))
    losses = max(abs(step["loss"] - right["loss"]) for step, right in steps)
    return losses, max(abs(step["gradient_norm"] / right["gradient_norm"] - 1) for step, right in steps)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_layer_left_out_is_no_rounding(dtype: str) -> None:
    loss, norm = largest_changes(one_process(3, "fp32"), one_process(4, "fp32"))
    assert loss > 2 * loss_bound(dtype, 4)
    assert norm > 2 * norm_bound(dtype, 4)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_gradient_counted_twice_is_no_rounding(dtype: str) -> None:
    ours = run_distributed(train_counting_the_tied_copy, 2, Layout(pipeline=2).config(), 1)[0]
    _, norm = largest_changes(ours, one_process(4, "fp32")[:1])
    assert norm > 2 * norm_bound(dtype, 4)
