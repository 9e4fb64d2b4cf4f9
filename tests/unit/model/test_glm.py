"""Every preset's stages, built without memory, against the arithmetic of the config; and what one stage hands on."""

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from glm130b.config.derived import layers_per_stage, num_parameters, parameters_per_stage
from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.attention import PackedSegments
from glm130b.model.glm import GLM
from glm130b.model.gradient_shrink import ShrinkFactors
from glm130b.model.sharding import parameter_shards
from glm130b.model.transformer_config import transformer_config
from glm130b.parallel.device import open_device
from glm130b.parallel.topology import connect, disconnect
from tests.harness.pool import run_distributed
from tests.harness.stage import stage
from tests.harness.synthetic import VOCAB, small_config

CONFIGS = Path(__file__).parents[3] / "configs"
PRESETS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


class StageCount(NamedTuple):
    """What the first tensor rank of a stage holds."""

    layers: int
    local: int
    """Parameters on the rank."""
    whole: int
    """Parameters of the whole model that the stage owns: unsharded, without the tied copy."""


def count_stages(launch: Launch, config: RunConfig) -> list[StageCount]:
    """Every stage of a layout of any size, one after the other, as the process that would hold it sees it."""
    open_device(local_rank=0)
    parallel, meta, real_init = config.parallel, torch.device("meta"), dist.init_process_group
    counts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "current_device", lambda: meta)  # where Megatron-core makes its weights
        patch.setattr(
            dist,
            "init_process_group",
            lambda *_, rank, world_size, **__: real_init("fake", store=FakeStore(), rank=rank, world_size=world_size),
        )
        for first_rank in range(0, parallel.tensor * parallel.pipeline, parallel.tensor):
            topology = connect(
                parallel,
                device=meta,
                rank=first_rank,
                world_size=parallel.tensor * parallel.pipeline,
                timeout=timedelta(minutes=1),
            )
            with meta:  # where torch makes LayerNorms
                model = GLM(
                    config.model,
                    transformer_config(config.model, parallel, config.precision),
                    groups=topology.groups,
                    first_stage=topology.is_first_stage,
                    last_stage=topology.is_last_stage,
                )
            assert all(parameter.is_meta for parameter in model.parameters())
            owned = [shard for shard in parameter_shards(model) if not shard.is_tied_copy]
            counts.append(
                StageCount(
                    layers=len(model.decoder.layers),
                    local=sum(parameter.numel() for parameter in model.parameters()),
                    whole=sum(torch.Size(shard.whole_shape).numel() for shard in owned),
                )
            )
            disconnect()
    return counts


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_the_parameters_that_its_config_says(preset: str) -> None:
    """Built on the meta device, so GLM-130B costs no memory; all its eight stages, each as its own rank sees it."""
    config = load_config(CONFIGS / f"{preset}.yaml")
    (counts,) = run_distributed(count_stages, 1, config)
    assert tuple(count.layers for count in counts) == layers_per_stage(config)
    assert tuple(count.local for count in counts) == parameters_per_stage(config, config.parallel.tensor)
    assert sum(count.whole for count in counts) == num_parameters(config.model)


def test_the_presets_were_found() -> None:
    assert {"tiny", "glm-130b"} <= set(PRESETS)


def outputs(launch: Launch, config: RunConfig) -> dict[str, torch.Tensor]:
    """Losses, logits and the parts around them of one small micro-batch."""
    with stage(launch, config) as model:
        tokens_BS, targets_BS = torch.arange(24).view(2, 12), torch.arange(24, 48).view(2, 12)
        inputs = (tokens_BS, torch.arange(12).repeat(2, 1), PackedSegments([[(0, 4, 8)], [(0, 12, 0)]]))
        return {
            "losses": model(*inputs, targets_BS).detach(),
            "logits": model(*inputs).detach(),
            "targets": targets_BS,
        }


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


def embedded_tokens(launch: Launch, config: RunConfig) -> list[float]:
    """Share of zeros among the embedded tokens, in training and in evaluation, and the scale of the others."""
    with stage(launch, config) as model:
        tokens_BS = torch.arange(96).view(4, 24)
        plain_SBH = model.embedding(tokens_BS).transpose(0, 1)
        training_SBH = model._embed(tokens_BS, ShrinkFactors())
        kept = training_SBH != 0
        scale = (training_SBH[kept] / plain_SBH[kept]).mean().item()
        evaluation_SBH = model.eval()._embed(tokens_BS, ShrinkFactors())
        assert torch.equal(evaluation_SBH, plain_SBH)
        return [1 - kept.float().mean().item(), scale]


def test_embeddings_are_dropped_in_training_only() -> None:
    (numbers,) = run_distributed(embedded_tokens, 1, small_config(model={"hidden_dropout": 0.25}))
    assert numbers[0] == pytest.approx(0.25, abs=0.03)  # 3072 draws: four standard deviations
    assert numbers[1] == pytest.approx(1 / 0.75, rel=1e-4)


def tied_weights(launch: Launch, config: RunConfig) -> tuple[bool, list[str]]:
    with stage(launch, config) as model:
        names = [name for name, _ in model.named_parameters() if name in ("embedding.weight", "output_layer.weight")]
        return model.tied_weight is not None, names


def test_only_the_first_and_the_last_stage_hold_the_embedding() -> None:
    ranks = run_distributed(tied_weights, 4, small_config(parallel={"pipeline": 4}))
    assert ranks == [(True, ["embedding.weight"]), (False, []), (False, []), (True, ["output_layer.weight"])]
    assert run_distributed(tied_weights, 1, small_config()) == [(True, ["embedding.weight"])]
