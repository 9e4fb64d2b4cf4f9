"""Every preset's stages, built without memory, against the arithmetic of the config; and what one stage hands on."""

from pathlib import Path

import pytest
import torch

from glm130b.config.derived import layers_per_stage, num_parameters, parameters_per_stage
from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.segments import PackedSegments
from tests.harness.meta_stages import count_stages
from tests.harness.pool import run_distributed
from tests.harness.stage import initial_chunk, scatter_parameters_
from tests.harness.synthetic import VOCAB, small_config

CONFIGS = Path(__file__).parents[3] / "configs"
PRESETS = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for folder in (CONFIGS, CONFIGS / "families")
    for path in folder.glob("*.yaml")
)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_the_parameters_that_its_config_says(preset: str) -> None:
    """Built on the meta device, so GLM-130B costs no memory; all its eight stages, each as its own rank sees it."""
    config = load_config(CONFIGS / f"{preset}.yaml")
    (counts,) = run_distributed(count_stages, 1, config)
    assert tuple(count.layers for count in counts) == layers_per_stage(config)
    assert tuple(count.local for count in counts) == parameters_per_stage(config, config.parallel.tensor)
    assert sum(count.whole for count in counts) == num_parameters(config.model)


def test_the_presets_were_found() -> None:
    assert {"tiny", "glm-130b", "families/palm-540b"} <= set(PRESETS)


def outputs(launch: Launch, config: RunConfig) -> dict[str, torch.Tensor]:
    """Losses, logits and the targets of one small micro-batch."""
    with initial_chunk(launch, config) as model, torch.no_grad():
        tokens_BS, targets_BS = torch.arange(24).view(2, 12), torch.arange(24, 48).view(2, 12)
        inputs = (tokens_BS, torch.arange(12).expand(2, 2, 12), PackedSegments([[(0, 4, 8)], [(0, 12, 0)]]))
        return {"losses": model(*inputs, targets_BS), "logits": model(*inputs), "targets": targets_BS}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_losses_are_the_cross_entropy_of_the_logits_in_fp32(dtype: str) -> None:
    (out,) = run_distributed(outputs, 1, small_config(precision={"dtype": dtype}))
    assert out["logits"].shape == (2, 12, VOCAB)
    assert out["losses"].shape == (2, 12)
    assert out["losses"].dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(
        out["logits"].float().transpose(1, 2), out["targets"], reduction="none"
    )
    torch.testing.assert_close(out["losses"], expected, atol=1e-5, rtol=1e-5)


def logits_by_segment(launch: Launch, config: RunConfig) -> list[torch.Tensor]:
    """Logits of one sentence as a context of five and a target of seven, as all context, and as all target."""
    with initial_chunk(launch, config) as model, torch.no_grad():
        scatter_parameters_(model)
        tokens_BS, positions_B2S = torch.arange(12)[None], torch.arange(12).expand(1, 2, 12)
        samples = [(0, 5, 7), (0, 12, 0), (0, 0, 12)]
        return [model(tokens_BS, positions_B2S, PackedSegments([[sample]])) for sample in samples]


def test_a_causal_model_knows_no_context() -> None:
    ((mixed, context, target),) = run_distributed(logits_by_segment, 1, small_config(model={"attention": "causal"}))
    assert torch.equal(mixed, target)
    assert torch.equal(context, target)
    ((mixed, context, target),) = run_distributed(logits_by_segment, 1, small_config())
    assert not torch.allclose(mixed, target, atol=0.1)
    assert not torch.allclose(context, target, atol=0.1)


Holdings = tuple[bool, list[str]]


def vocabulary_matrices(launch: Launch, config: RunConfig) -> Holdings:
    """Whether this stage takes part in tying, and the matrices of the vocabulary's size that it holds."""
    with initial_chunk(launch, config) as model:
        names = ("embedding.word.weight", "output_layer.weight")
        return model.tied_weight is not None, [name for name, _ in model.named_parameters() if name in names]


def held_by_stages(pipeline: int, *, tie_embedding: bool) -> list[Holdings]:
    config = small_config(model={"tie_embedding": tie_embedding}, parallel={"pipeline": pipeline})
    return run_distributed(vocabulary_matrices, pipeline, config)


def test_the_first_and_the_last_stage_hold_a_tied_embedding_each() -> None:
    word, head = "embedding.word.weight", "output_layer.weight"
    assert held_by_stages(1, tie_embedding=True) == [(True, [word])]
    assert held_by_stages(4, tie_embedding=True) == [(True, [word]), (False, []), (False, []), (True, [head])]


def test_an_untied_model_has_two_matrices_and_no_copy() -> None:
    word, head = "embedding.word.weight", "output_layer.weight"
    assert held_by_stages(1, tie_embedding=False) == [(False, [word, head])]
    assert held_by_stages(4, tie_embedding=False) == [(False, [word]), (False, []), (False, []), (False, [head])]
