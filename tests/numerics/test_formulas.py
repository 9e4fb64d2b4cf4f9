"""The formulas of ``config/derived.py`` against counts: operations by PyTorch's counter, parameters by building."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glm130b.config.derived import layers_per_stage, model_flops_per_sample, num_parameters, parameters_per_stage
from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model import attention_sdpa
from glm130b.model.segments import PackedSegments
from tests.harness.meta_stages import StageCount, count_stages
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk
from tests.harness.synthetic import SEQUENCE, small_config

CONFIGS = Path(__file__).parents[2] / "configs"

FLOP_SWITCHES: dict[str, dict[str, Any]] = {
    "GLM-130B": {},
    "swiglu": {"ffn": "swiglu"},
    "gelu": {"ffn": "gelu"},
    "grouped heads": {"num_key_value_heads": 2},
    "one key/value head": {"num_key_value_heads": 1},
    "head dim": {"head_dim": 12},
    "wide heads, one key/value head": {"num_key_value_heads": 1, "head_dim": 20},
    "no biases": {"biases": False},
    "untied": {"tie_embedding": False},
    "alibi": {"positions": "alibi"},
    "learned_2d": {"positions": "learned_2d", "max_positions": SEQUENCE},
    "causal": {"attention": "causal"},
    "parallel block": {"norm_placement": "pre", "parallel_block": True},
}


def counted_flops(launch: Launch, config: RunConfig, segment: tuple[int, int, int]) -> int:
    """Forward and backward pass of one row that is one segment.

    The counter knows matrix products, and attention on a CPU only where that is made of them: by PyTorch's plain
    implementation, which computes all scores, also those that causality then discards.
    """
    with (
        initial_chunk(launch, config) as model,
        sdpa_kernel(SDPBackend.MATH),
        # PyTorch cannot make its lazy causal mask under the counter; this is the same, written out.
        patch.object(
            attention_sdpa, "causal_lower_right", lambda own, seen: torch.ones(own, seen).tril(seen - own) > 0
        ),
    ):
        tokens_BS = torch.arange(SEQUENCE)[None]
        positions_B2S = torch.arange(SEQUENCE).expand(1, 2, SEQUENCE)
        with FlopCounterMode(display=False) as counter:
            model(tokens_BS, positions_B2S, PackedSegments([[segment]]), tokens_BS).sum().backward()
        return counter.get_total_flops()


@pytest.mark.parametrize("switches", FLOP_SWITCHES.values(), ids=FLOP_SWITCHES)
def test_a_row_takes_the_operations_of_the_formula(switches: dict[str, Any]) -> None:
    config = small_config(model=switches)
    assert run_distributed(counted_flops, 1, config, (0, 0, SEQUENCE)) == [model_flops_per_sample(config)]


def test_a_context_saves_the_scores_that_nobody_needs() -> None:
    """A context never looks at the targets: what the formula counts too much is context times target, by two products
    forward and four backward."""
    config, context = small_config(), 12
    unseen = context * (SEQUENCE - context)
    saved = config.model.num_layers * 6 * 2 * unseen * config.model.num_attention_heads * config.model.head_size
    assert run_distributed(counted_flops, 1, config, (0, context, SEQUENCE - context)) == [
        model_flops_per_sample(config) - saved
    ]


PARAMETER_SWITCHES: dict[str, dict[str, Any]] = {
    **FLOP_SWITCHES,
    "post": {"norm_placement": "post"},
    "sandwich": {"norm_placement": "sandwich"},
    "rmsnorm": {"normalization": "rmsnorm"},
    "rmsnorm, no biases, untied": {"normalization": "rmsnorm", "biases": False, "tie_embedding": False},
    "learned": {"positions": "learned", "max_positions": SEQUENCE},
    "embedding norm": {"embedding_norm": True},
    "embedding norm, no biases": {"embedding_norm": True, "biases": False},
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "one process": {},
    "TP4": {"tensor": 4},
    "TP2 PP2": {"tensor": 2, "pipeline": 2},
    "PP2, two virtual stages": {"pipeline": 2, "virtual_stages": 2},
    "TP4 PP3, uneven": {"tensor": 4, "pipeline": 3, "embedding_and_head_count_as_layers": True},
}


def counts(launch: Launch, configs: Sequence[RunConfig]) -> list[list[StageCount]]:
    """Stages of several models, one after the other on the meta device."""
    return [count_stages(launch, config) for config in configs]


def assert_counted(configs: dict[str, RunConfig]) -> None:
    """Built models have the layers and parameters of the formulas, stage by stage and on the whole."""
    (built,) = run_distributed(counts, 1, list(configs.values()))
    found = {
        name: (tuple(c.layers for c in stages), tuple(c.local for c in stages), sum(c.whole for c in stages))
        for name, stages in zip(configs, built, strict=True)
    }
    assert found == {
        name: (layers_per_stage(c), parameters_per_stage(c, c.parallel.tensor), num_parameters(c.model))
        for name, c in configs.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_stage_holds_the_parameters_of_the_formula(layout: dict[str, Any]) -> None:
    assert_counted({name: small_config(model=model, parallel=layout) for name, model in PARAMETER_SWITCHES.items()})


def test_every_family_holds_the_parameters_of_the_formula() -> None:
    """Whole models, without their memory; that the formula gives the published numbers is tested with the presets."""
    assert_counted({path.stem: load_config(path) for path in CONFIGS.glob("families/*.yaml")})
