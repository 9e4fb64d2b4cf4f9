"""Every switch of the model section, and the families they make: ours against the plain-PyTorch reference."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.gradient_shrink import ShrinkFactors
from tests.harness.pool import run_distributed
from tests.harness.reference_comparison import (
    Measured,
    assert_gradients,
    measure,
    oracle_gradients,
    oracle_logits,
    oracle_steps,
    product_logits,
    scattered_weights,
)
from tests.harness.reference_training import StepResult
from tests.harness.synthetic import SEQUENCE, small_config
from tests.harness.training import StepNumbers, initial_weights, train_steps

Switches = dict[str, Any]

SWITCHES: dict[str, Switches] = {
    "GLM-130B": {},
    "pre": {"norm_placement": "pre"},
    "post": {"norm_placement": "post"},
    "sandwich": {"norm_placement": "sandwich"},
    "parallel block": {"norm_placement": "pre", "parallel_block": True},
    "rmsnorm": {"normalization": "rmsnorm"},
    "epsilon": {"layernorm_epsilon": 0.1},
    "no biases": {"biases": False},
    "rope_2d": {"positions": "rope_2d"},
    "learned": {"positions": "learned", "max_positions": SEQUENCE},
    "learned_2d": {"positions": "learned_2d", "max_positions": SEQUENCE},
    "alibi": {"positions": "alibi"},
    "alibi of three heads": {"positions": "alibi", "num_attention_heads": 3, "head_dim": 12},
    "rotary base": {"rotary_base": 500.0},
    "fp16 table": {"rotary_table": "fp16"},
    "fp16 table, rope_2d": {"rotary_table": "fp16", "positions": "rope_2d"},
    "swiglu": {"ffn": "swiglu"},
    "gelu": {"ffn": "gelu"},
    "grouped heads": {"num_key_value_heads": 2},
    "one key/value head": {"num_key_value_heads": 1},
    "head dim": {"head_dim": 12},
    "embedding norm": {"embedding_norm": True},
    "untied": {"tie_embedding": False},
    "causal": {"attention": "causal"},
    "LLaMA with grouped heads": {
        "norm_placement": "pre",
        "normalization": "rmsnorm",
        "num_key_value_heads": 2,
        "ffn": "swiglu",
        "biases": False,
        "tie_embedding": False,
        "attention": "causal",
    },
}
"""Each value of each switch by itself, on GLM-130B's architecture, and one that no preset has."""

FAMILIES = {
    "GLM": "glm-10b",
    "ChatGLM": "chatglm-6b",
    "GPT": "gpt2-xl",
    "BLOOM": "bloom-176b",
    "PaLM": "palm-540b",
    "LLaMA": "llama-7b",
}
"""The presets under ``configs/families``, cut down to the tests' size."""

CASES = (*SWITCHES, *FAMILIES)

LAYOUTS: dict[str, Switches] = {
    "TP2": {"tensor": 2},
    "TP4": {"tensor": 4},
    "PP2": {"pipeline": 2},
    "TP2 PP2": {"tensor": 2, "pipeline": 2},
    "TP2 SP": {"tensor": 2, "sequence_parallel": True},
    "TP2 PP2 SP": {"tensor": 2, "pipeline": 2, "sequence_parallel": True},
}

LAID_OUT = [
    *((family, "TP2 PP2") for family in FAMILIES),
    ("one key/value head", "TP2"),  # Megatron-core cuts its one group of rows over the ranks
    ("grouped heads", "TP2"),
    ("grouped heads", "TP4"),  # two groups, each cut over two ranks
    ("alibi", "TP4"),
    ("untied", "PP2"),
    ("post", "PP2"),
    ("BLOOM", "TP2 SP"),
    ("GLM", "TP2 SP"),
    ("PaLM", "TP2 SP"),
    ("sandwich", "TP2 SP"),
    ("LLaMA with grouped heads", "TP2 PP2 SP"),
    ("post", "TP2 PP2 SP"),
]

PRESETS = Path(__file__).parents[2] / "configs" / "families"
SIZES = {
    *("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size", "vocab_size"),
    *("attention_dropout", "hidden_dropout", "embedding_gradient_shrink"),
}
SHRINK = ShrinkFactors(input_side=0.25, logit_side=0.5)
NUM_STEPS = 5
ROUNDING = {"fp16": 2**-11, "bf16": 2**-8}
"""Of a number of size 1: a loss, a mean over hundreds of tokens, and a gradient norm average over many such."""
OPTIMIZERS = ("sgd", "adamw")


def switches_of(case: str) -> Switches:
    """The model section of a case, but for sizes and dropout."""
    if case in SWITCHES:
        return SWITCHES[case]
    model = load_config(PRESETS / f"{FAMILIES[case]}.yaml").model
    chosen = {name: value for name, value in model if value != type(model).model_fields[name].default}
    at_this_size = {"max_positions": SEQUENCE, "head_dim": 12, "initial_std": 0.1}
    return {name: at_this_size.get(name, value) for name, value in chosen.items() if name not in SIZES}


def config_of(case: str, optimizer: str, layout: str | None = None, dtype: str = "fp32") -> RunConfig:
    parallel = LAYOUTS[layout] if layout else {}
    peak = {"sgd": 1.0, "adamw": 1e-2}[optimizer]
    return small_config(
        model={"num_layers": 2, **switches_of(case)},
        precision={"dtype": dtype, "loss_scale": {"initial_power": 8}},
        parallel={"tensor": 1, "pipeline": 1, "data": 1, **parallel},
        optimizer={
            "name": optimizer,
            "learning_rate": {"peak": peak, "minimum": peak, "warmup_samples": 16, "decay_samples": 160},
        },
    )


@dataclass(frozen=True)
class OneProcess:
    """What the product found in one process."""

    initial: dict[str, Tensor]
    logits: Tensor
    by_optimizer: dict[str, Measured]


def measure_one_process(launch: Launch, case: str, weights: Mapping[str, Tensor]) -> OneProcess:
    config = config_of(case, "sgd")
    return OneProcess(
        initial_weights(launch, config),
        product_logits(launch, config, weights),
        {name: measure(launch, config_of(case, name), weights, SHRINK, NUM_STEPS) for name in OPTIMIZERS},
    )


@cache
def one_process(case: str) -> OneProcess:
    return run_distributed(measure_one_process, 1, case, given_weights(case))[0]


@cache
def in_layout(case: str, layout: str) -> list[Measured]:
    config = config_of(case, "adamw", layout)
    world_size = config.parallel.tensor * config.parallel.pipeline
    return run_distributed(measure, world_size, config, given_weights(case), SHRINK, NUM_STEPS)


@cache
def given_weights(case: str) -> dict[str, Tensor]:
    return scattered_weights(config_of(case, "sgd").model)


@cache
def expected_gradients(case: str) -> dict[str, Tensor]:
    """The oracle's, in fp64."""
    return oracle_gradients(config_of(case, "sgd"), given_weights(case), SHRINK, torch.float64)


@cache
def expected_steps(case: str, optimizer: str) -> list[StepResult]:
    """The oracle's, from the product's initial weights."""
    return oracle_steps(config_of(case, optimizer), one_process(case).initial, NUM_STEPS)


def assert_steps(ours: list[StepNumbers], expected: list[StepResult]) -> None:
    for step, reference in zip(ours, expected, strict=True):
        assert step["loss"] == pytest.approx(reference.loss, abs=1e-5)
        assert step["gradient_norm"] == pytest.approx(reference.gradient_norm, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_references(case: str) -> None:
    expected = oracle_logits(config_of(case, "sgd"), given_weights(case))
    assert (one_process(case).logits - expected).abs().max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_every_gradient_is_the_references(case: str) -> None:
    expected = expected_gradients(case)
    assert_gradients(
        [one_process(case).by_optimizer["sgd"].gradients], expected, config_of(case, "sgd"), atol=5e-7, rtol=1e-5
    )
    assert all(gradient.abs().max() > 1e-3 for gradient in expected.values())  # a comparison of zeros says nothing


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_steps_are_the_references(case: str, optimizer: str) -> None:
    expected = expected_steps(case, optimizer)
    assert_steps(one_process(case).by_optimizer[optimizer].steps, expected)
    assert expected[-1].loss < expected[0].loss - 0.02


@pytest.mark.parametrize(("case", "layout"), LAID_OUT)
def test_every_gradient_of_a_layout_is_the_references(case: str, layout: str) -> None:
    gradients = [rank.gradients for rank in in_layout(case, layout)]
    config = config_of(case, "adamw", layout)
    assert_gradients(gradients, expected_gradients(case), config, atol=5e-7, rtol=1e-5)


@pytest.mark.parametrize(("case", "layout"), LAID_OUT)
def test_steps_of_a_layout_are_the_references(case: str, layout: str) -> None:
    for rank in in_layout(case, layout):
        assert_steps(rank.steps, expected_steps(case, "adamw"))


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("case", [*FAMILIES, "sandwich", "post", "rope_2d", "fp16 table"])
def test_half_precision_is_fp32_rounded(case: str, dtype: str) -> None:
    """Of the first step: what follows is Adam's, which turns the rounding of a small gradient into a whole update."""
    (ours,) = run_distributed(train_steps, 1, config_of(case, "adamw", dtype=dtype), 1)[0]
    exact = expected_steps(case, "adamw")[0]
    assert ours["loss"] == pytest.approx(exact.loss, abs=ROUNDING[dtype])
    assert ours["gradient_norm"] == pytest.approx(exact.gradient_norm, rel=ROUNDING[dtype])
