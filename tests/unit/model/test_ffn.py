"""The fused FFN is the plain one, for every activation, with and without biases."""

import pytest
import torch

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.ffn import FFN, FusedFFN
from glm130b.model.transformer_config import transformer_config
from tests.harness.pool import run_distributed
from tests.harness.stage import joined, scatter_parameters_
from tests.harness.synthetic import small_config


def distance_between_fused_and_plain(launch: Launch, config: RunConfig) -> list[float]:
    """Largest differences of the output, its bias, and every gradient."""
    with joined(launch, config), torch.compiler.set_stance("force_eager"):
        transformer = transformer_config(config.model, config.parallel, config.precision)
        plain, fused = FFN(transformer), FusedFFN(transformer)
        scatter_parameters_(plain)
        fused.load_state_dict(plain.state_dict())
        hidden_SBH = torch.randn(6, 2, config.model.hidden_size, generator=torch.Generator().manual_seed(2))
        results = []
        for ffn in (plain, fused):
            out_SBH, bias_H = ffn(hidden_SBH)
            assert (bias_H is None) == (not config.model.biases)
            (out_SBH if bias_H is None else out_SBH + bias_H).square().sum().backward()
            results.append([out_SBH, *(p.grad for p in ffn.parameters())])
        return [(a - b).abs().max().item() / a.abs().max().item() for a, b in zip(*results, strict=True)]


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("ffn", ["geglu", "swiglu", "gelu"])
def test_fused_is_plain(ffn: str, biases: bool) -> None:
    """Megatron-core's SwiGLU writes its gradient out in other words, so the last bits differ."""
    (distances,) = run_distributed(
        distance_between_fused_and_plain, 1, small_config(model={"ffn": ffn, "biases": biases})
    )
    assert len(distances) == (5 if biases else 3)
    assert max(distances) <= (0.0 if ffn != "swiglu" else 1e-6)
