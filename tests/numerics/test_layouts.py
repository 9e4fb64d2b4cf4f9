"""No layout changes the model: losses, the global and every layer's gradient norm of twenty steps, against one process.

One process is itself held against plain PyTorch in ``test_against_reference.py`` and ``test_family.py``.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product

import pytest

from glm130b.config.sections import RunConfig
from tests.harness.gradient_norms import train_with_layer_norms
from tests.harness.pool import run_distributed
from tests.harness.synthetic import SyntheticRows, small_config
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
    Layout(tensor=4, micro=1),
    Layout(pipeline=2, virtual=2),
    Layout(pipeline=2, uneven=True, virtual=2, layers=6, recompute="full", micro=1),
    Layout(pipeline=4, uneven=True, layers=6),
    Layout(data=2, zero=2),
    Layout(data=2, offload=True, recompute="selective"),
    Layout(tensor=2, data=2, zero=2, recompute="full"),
    Layout(tensor=2, pipeline=2, data=2, virtual=2, sequence=True, recompute="selective", micro=1),
]
"""Every switch at least once, in ``make test``."""


def _everything() -> list[Layout]:
    """TP {1, 2, 4} x PP {1, 2, 4} x DP {1, 2}, each in four dresses that between them have every switch on and off."""
    layouts = []
    for tensor, pipeline, data in product((1, 2, 4), (1, 2, 4), (1, 2)):
        grid = {"tensor": tensor, "pipeline": pipeline, "data": data}
        sequence = tensor > 1
        layouts.append(Layout(**grid))
        layouts.append(Layout(**grid, sequence=sequence, recompute="selective", micro=1))
        if pipeline > 1:
            layouts.append(Layout(**grid, uneven=True, layers=6, recompute="full", micro=1))
            layouts.append(Layout(**grid, virtual=2, layers=8, sequence=sequence, micro=1))
        else:
            layouts.append(Layout(**grid, zero=2, recompute="full", micro=1))
            layouts.append(Layout(**grid, offload=True, sequence=sequence))
    return [*layouts, Layout(pipeline=8, uneven=True, layers=70, recompute="full")]


@cache
def one_process(layers: int, dtype: str) -> list[StepNumbers]:
    layout = Layout(layers=layers)
    numbers: list[StepNumbers] = run_distributed(train_with_layer_norms, 1, layout.config(dtype), NUM_STEPS)[0]
    # The comparison would be empty if nothing were learned, or the gradient never clipped.
    assert numbers[-1]["loss"] < numbers[0]["loss"] - 0.1
    assert max(step["gradient_norm"] for step in numbers) > layout.config().optimizer.clip_gradient_norm
    return numbers


def check(layout: Layout, dtype: str, *, losses_within: float, norms_within: float) -> None:
    run = train_steps if layout.zero == 2 else train_with_layer_norms  # ZeRO 2 keeps no whole gradients to look at
    expected = one_process(layout.layers, dtype)
    for rank in run_distributed(run, layout.world_size, layout.config(dtype), NUM_STEPS, timeout=280):
        for ours, theirs in zip(rank, expected, strict=True):
            norms = [key for key in theirs if key.startswith("gradient_norm") and (layout.zero == 1 or "/" not in key)]
            assert layout.zero == 2 or len(norms) == layout.layers + 3  # global, layers, embedding, final norm
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=losses_within)
            for key in norms:
                assert ours[key] == pytest.approx(theirs[key], abs=norms_within), key


@pytest.mark.parametrize("layout", EVERY_DAY, ids=str)
def test_a_layout_changes_nothing(layout: Layout) -> None:
    check(layout, "fp32", losses_within=1e-5, norms_within=1e-5)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", _everything(), ids=str)
def test_every_layout_changes_nothing(layout: Layout) -> None:
    check(layout, "fp32", losses_within=1e-5, norms_within=1e-5)


ROUNDINGS_PER_LAYER = 10
"""Times that a layer rounds what it computes to the run's format: two norms, the outputs and the biases of four
products, queries and keys turned, the mixed values, the activation, two residual sums; some of these inside another."""


def rounding_bound(dtype: str, layers: int) -> float:
    """How far apart rounding keeps the losses of two layouts, three standard deviations.

    A rounding moves a value by u / sqrt(3) in the mean, relatively, with u the unit roundoff; K of them in a row,
    independent, by sqrt(K) times that. The residual stream is normalised to variance 1 and the logits of this model
    have a standard deviation below 1, so a token's loss moves by about as much, and the mean over the T loss tokens of
    a batch by sqrt(T) less. Backward and update round as often, which adds as much again, independently: sqrt(2). So
    does the other layout, with its sums in another order: sqrt(2) once more.
    """
    unit_roundoff = {"fp16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    rows = SyntheticRows()
    tokens = sum(int(rows[sample].loss_mask.sum()) for sample in range(8))
    forward = math.sqrt(ROUNDINGS_PER_LAYER * layers / 3) * unit_roundoff / math.sqrt(tokens)
    return 3 * math.sqrt(2) * math.sqrt(2) * forward


HALF_PRECISION = [
    Layout(tensor=2, pipeline=2, data=2, sequence=True, recompute="selective"),
    Layout(tensor=4, recompute="full"),
    Layout(pipeline=2, virtual=2, micro=1),
    Layout(data=2, zero=2),
    Layout(tensor=2, offload=True, sequence=True),
]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("layout", HALF_PRECISION, ids=str)
def test_a_layout_stays_within_rounding_in_half_precision(layout: Layout, dtype: str) -> None:
    bound = rounding_bound(dtype, layout.layers)
    check(layout, dtype, losses_within=bound, norms_within=bound)


def test_the_bounds_of_half_precision_are_tight_enough_to_tell() -> None:
    """A layer left out of a layout, or a gradient counted twice, moves losses and norms by more than the bound."""
    fp32 = one_process(4, "fp32")
    learned = fp32[0]["loss"] - fp32[-1]["loss"]
    assert rounding_bound("fp16", 4) < 0.01 * learned
    assert rounding_bound("bf16", 4) < 0.05 * learned
