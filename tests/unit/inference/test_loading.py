"""A run's folder becomes a model that says what the training model said."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from glm130b.config.errors import UserError
from glm130b.environment import Launch
from glm130b.inference import loading
from glm130b.inference.loading import load_run
from glm130b.model.segments import PackedSegments
from tests.harness.pool import run_distributed
from tests.unit.inference.conftest import SavedRun
from tests.unit.inference.runs import rows


def loaded_logits(launch: Launch, folder: Path) -> tuple[np.ndarray, bool, str]:
    trained = load_run(folder)
    batch = rows()
    with torch.no_grad():
        logits_BSV = trained.model(batch.tokens_BS, batch.positions_B2S, PackedSegments(batch.segments))
    return logits_BSV.numpy(), trained.model.training, trained.tokenizer.fingerprint


def test_logits_are_those_of_the_training_model(saved_run: SavedRun) -> None:
    logits_BSV, training, fingerprint = run_distributed(loaded_logits, 1, saved_run.folder)[0]
    assert logits_BSV.shape == saved_run.logits_BSV.shape == (3, 32, saved_run.config.model.vocab_size)
    inside = rows().loss_weights_BS.numpy() > 0
    np.testing.assert_allclose(logits_BSV[inside], saved_run.logits_BSV[inside], atol=1e-5)
    assert not training
    assert fingerprint == saved_run.tokenizer.fingerprint


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError) as raised:
            load_run(run)
        assert raised.value.problems == (
            f"{run}: has no checkpoint; give the folder of a run that has trained, such as runs/tiny",
        )


def copy_of(saved_run: SavedRun, folder: Path) -> tuple[Path, Path]:
    """A run's folder to damage, and its run.json."""
    shutil.copytree(saved_run.folder / "checkpoints", folder / "checkpoints")
    return folder, folder / "checkpoints" / "step-00000003" / "run.json"


def test_a_missing_tokenizer(saved_run: SavedRun, tmp_path: Path) -> None:
    folder, description = copy_of(saved_run, tmp_path)
    described = json.loads(description.read_text())
    described["config"]["data"]["tokenizer"] = str(tmp_path / "moved.model")
    description.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"^tokenizer .*moved\.model: cannot be read \(No such file or directory\); "):
        load_run(folder)


def test_a_model_that_does_not_fit(saved_run: SavedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_host_bytes", lambda: 1000)
    with pytest.raises(UserError, match=r"weights need 0\.0 GiB of host memory in this one process, 0\.0 are free"):
        load_run(saved_run.folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "holds latest, step-00000003, and no whole checkpoint of this version"),
        ("{", r"run\.json: cannot be read, or is of an older version \(JSONDecodeError"),
        ("{}", r"run\.json: cannot be read, or is of an older version \(KeyError"),
        ('{"config": {}}', r"run\.json: cannot be read, or is of an older version \(KeyError"),
    ],
)
def test_a_damaged_description(saved_run: SavedRun, tmp_path: Path, content: str | None, reason: str) -> None:
    folder, description = copy_of(saved_run, tmp_path)
    if content is None:
        description.unlink()
    else:
        description.write_text(content)
    with pytest.raises(UserError, match=reason):
        load_run(folder)


def test_a_config_of_another_version_is_named_by_its_key(saved_run: SavedRun, tmp_path: Path) -> None:
    folder, description = copy_of(saved_run, tmp_path)
    described = json.loads(description.read_text())
    described["config"]["model"]["num_layers"] = "four"
    description.write_text(json.dumps(described))
    with pytest.raises(UserError, match=r'^model\.num_layers: "four" is not a whole number'):
        load_run(folder)
