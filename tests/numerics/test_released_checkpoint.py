"""Released weights, imported, are the original model: its logits, and training from them as plain PyTorch does it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glm130b.checkpoint.released.importing import import_released
from glm130b.config.sections import RunConfig
from glm130b.data.objectives.row import Segment
from glm130b.environment import Launch
from glm130b.inference.loading import load_run
from glm130b.model.segments import PackedSegments
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.reference_comparison import oracle_steps
from tests.harness.reference_glm import from_released_layout
from tests.harness.released import released_weights, restored, write_released, write_tokenizer
from tests.harness.synthetic import small_config
from tests.harness.training import StepNumbers, live_run

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # an import needs no job

PUBLIC_MODEL = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "ffn_hidden_size": 176,
    "vocab_size": 384,
}
Case = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture
def case(shared_reference: Path) -> Case:
    return dict(np.load(shared_reference / "case_a_gmask.npz"))


def logits_in_training(launch: Launch, config: RunConfig, case: Case, positions: str) -> np.ndarray:
    """Of a run that has restored its checkpoint and takes no step, in its own number format."""
    run = live_run(config, launch)
    restored(run)
    (model,) = run.stage.eval()
    logits = case_logits(model, case, positions)
    disconnect()
    return logits


def logits_in_inference(launch: Launch, config: RunConfig, case: Case, positions: str) -> np.ndarray:
    """Of ``glm130b generate``."""
    return case_logits(load_run(Path(config.folder) / config.name).model, case, positions)


@torch.no_grad()
def case_logits(model: torch.nn.Module, case: Case, positions: str) -> np.ndarray:
    context, length = int(case["division"][0]), case["input_ids"].shape[1]
    positions_B2S = case["position_ids_2d"] if positions == "rope_2d" else np.stack([case["position_ids"]] * 2, axis=1)
    segments = PackedSegments([[Segment(0, context, length - context)]])
    logits_BSV = model(torch.from_numpy(case["input_ids"]), torch.from_numpy(positions_B2S), segments)
    result: np.ndarray = logits_BSV.float().numpy()
    return result


@pytest.mark.parametrize(
    ("model", "precision", "expected", "tolerance"),
    [
        ({}, "fp32", "logits", 1e-5),
        ({"positions": "rope_2d"}, "fp32", "logits_2d", 1e-5),
        ({"rotary_table": "fp16"}, "fp32", "logits_rope_fp16", 1e-5),
        ({}, "fp16", "logits", 1e-2),
        ({"positions": "rope_2d"}, "fp16", "logits_2d", 1e-2),
        ({"rotary_table": "fp16"}, "fp16", "logits_rope_fp16", 1e-2),
    ],
)
def test_logits_are_those_of_the_public_model(
    tmp_path: Path,
    shared_reference: Path,
    tokenizer: str,
    case: Case,
    model: dict[str, Any],
    precision: str,
    expected: str,
    tolerance: float,
) -> None:
    config = small_config(
        folder=str(tmp_path),  # type: ignore[arg-type]
        model=PUBLIC_MODEL | model,
        data={"tokenizer": tokenizer},
        precision={"dtype": precision},
    )
    import_released(shared_reference / "released_layout_tp1", config)
    (logits,) = run_distributed(logits_in_training, 1, config, case, config.model.positions)
    assert np.abs(logits - case[expected]).max() <= tolerance
    # The cases differ by more than the tolerance of fp32, so that each sees its own switch.
    others = {"logits", "logits_2d", "logits_rope_fp16"} - {expected}
    assert all(np.abs(case[other] - case[expected]).max() > 1e-4 for other in others)
    if precision == "fp32":
        (logits,) = run_distributed(logits_in_inference, 1, config, case, config.model.positions)
        assert np.abs(logits - case[expected]).max() <= tolerance


def train_from_import(launch: Launch, config: RunConfig, count: int) -> list[StepNumbers]:
    run = live_run(config, launch)
    _, numbers = run.take_steps(count, restored(run))
    disconnect()
    return numbers


def test_training_from_released_weights_is_the_reference_training(tmp_path: Path, tokenizer: str) -> None:
    """Moments of zero and a step count of zero: twenty steps as an AdamW that has just been made takes them."""
    config = small_config(folder=str(tmp_path / "runs"), data={"tokenizer": tokenizer})  # type: ignore[arg-type]
    weights = released_weights(config.model)
    import_released(write_released(tmp_path / "released", weights, num_shards=4), config)
    whole = {name: tensor.float() for name, tensor in from_released_layout(weights).items()}
    (numbers,) = run_distributed(train_from_import, 1, config, 20)
    expected = oracle_steps(config, whole, 20)
    for ours, reference in zip(numbers, expected, strict=True):
        assert ours["loss"] == pytest.approx(reference.loss, abs=1e-5)
        assert ours["gradient_norm"] == pytest.approx(reference.gradient_norm, abs=1e-5)
    assert expected[-1].loss < expected[0].loss - 0.1
