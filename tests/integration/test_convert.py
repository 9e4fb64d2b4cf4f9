"""``glm130b convert`` among the other commands, the page about it, and the memory it takes."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from benchmarks.convert import Workplace
from glm130b.config.load import load_config
from tests.harness.released import released_weights, shard_of, write_released
from tests.integration.conftest import BIN, Command
from tests.integration.test_main_job import SHORT, TWO_STAGES, metrics


def commands_of(page: Path) -> list[list[str]]:
    """The words of every command that a page shows."""
    return [line.split() for line in page.read_text().splitlines() if line.startswith("    glm130b ")]


@pytest.mark.full
def test_the_page_its_run_and_back(root: Path, demo: list[str], command: Command, tmp_path: Path) -> None:
    """The page's two commands on a release of the tiny preset's size, and between them two stages that train."""
    into, out = commands_of(root / "docs" / "released-checkpoints.md")
    assert (into[1:3], out[1:3]) == (["convert", "import"], ["convert", "export"])
    tiny = str(root / "configs" / "tiny.yaml")
    weights = released_weights(load_config(tiny).model)
    released = write_released(tmp_path / "glm-130b", weights, num_shards=4)
    folder = Path(next(word for word in demo if word.startswith("folder=")).partition("=")[2])
    here = {
        "/data/glm-130b": str(released),
        "configs/glm-130b.yaml": tiny,
        "runs/released": str(folder / "released"),
        "exported": str(tmp_path / "exported"),
        "195591480": "16",
        "8": "4",
    }

    def in_this_place(words: Sequence[str]) -> list[str]:
        return [here.get(word, word) for word in words]

    overrides = [*demo, *SHORT, *TWO_STAGES]
    config = into.index("configs/glm-130b.yaml")
    printed = command(in_this_place([*into[: config + 1], *overrides, *into[config + 1 :]]))
    assert "weights without optimizer state" in printed
    assert "Warning" not in printed

    exported = torch.load(_exported_shard(command, in_this_place(out), tmp_path, "2"), weights_only=True)["module"]
    assert all(torch.equal(exported[key], shard_of(key, weights[key], 3, 4)) for key in weights if "rotary" not in key)

    run = [word for word in into if "=" in word]
    torchrun = [BIN / "torchrun", "--nproc-per-node", "2", root / "launch" / "pretrain.sh", tiny]
    printed = command([*torchrun, *overrides, *run, "train_samples=32"])
    assert "at step 2" in printed
    assert [record["step"] for record in metrics(folder / "released")] == [3, 4]
    trained = torch.load(_exported_shard(command, in_this_place(out), tmp_path, "4"), weights_only=True)["module"]
    moved = {re.sub(r"\d+", "i", key) for key in trained if not torch.equal(trained[key], exported[key])}
    unmoved = {re.sub(r"\d+", "i", key) for key in trained} - moved
    # Two small steps away from 1 are none in fp16.
    assert all("rotary" in key or key.endswith("layernorm.weight") for key in unmoved), unmoved
    assert "filled  Return" in command(["glm130b", "generate", folder / "released", "--prompt", "Return"])


def _exported_shard(command: Command, words: Sequence[str], folder: Path, iteration: str) -> Path:
    """Run an export; the file of its last shard."""
    exported = folder / "exported"
    if exported.exists():
        exported.rename(folder / "exported before")
    assert "written as 4 shards of fp16" in command(words)
    assert (exported / "latest").read_text() == iteration
    return exported / iteration / "mp_rank_03_model_states.pt"


@pytest.mark.full
def test_memory_is_that_of_a_few_tensors(tmp_path: Path) -> None:
    """Above an empty model's, in bytes: a few of the largest tensors, far from the model."""
    empty = Workplace(_folder(tmp_path / "empty"), num_layers=1, hidden_size=64, vocab_size=512, num_shards=1)
    model = Workplace(_folder(tmp_path / "model"), num_layers=24, hidden_size=512, vocab_size=2048, num_shards=4)
    largest, whole = 4 * model.largest_tensor, 2 * sum(file.stat().st_size for file in tmp_path.rglob("*.pt"))
    for nothing, measured in zip(empty.convert(), model.convert(), strict=True):
        above = measured.peak_bytes - nothing.peak_bytes
        assert above < 5 * largest + 10e6, f"{measured.what}: {above / 1e6:.0f} MB"
        assert above < whole / 4


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
