"""What a rank tells of itself: the same for the same files, another for other data."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.preflight import rank_facts
from glm130b.preflight.rank_facts import Facts, local_facts, settings_of

CPU = torch.device("cpu")


@pytest.fixture
def config(words: list[str]) -> RunConfig:
    return load_config(words[0], words[1:])


def test_facts_are_small_and_repeatable(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"NCCL_IB_HCA": "mlx5", "OMP_NUM_THREADS": "1", "HOME": "/root"})
    facts = local_facts(config, CPU)
    assert facts.must_agree == local_facts(config, CPU).must_agree
    assert {"source", "torch", "megatron-core", "deepspeed", "data.tokenizer"} <= facts.must_agree.keys()
    assert {"NCCL_IB_HCA": "mlx5", "OMP_NUM_THREADS": "1"}.items() <= facts.should_agree.items()
    assert "HOME" not in facts.should_agree
    assert len(pickle.dumps(facts)) < 4096


def test_another_config_is_another_digest(config: RunConfig) -> None:
    other = config.model_copy(update={"seed": 5})
    assert local_facts(config, CPU).config != local_facts(other, CPU).config
    assert settings_of(other)["seed"] == "5"
    assert settings_of(config)["optimizer.learning_rate.peak"] == "0.002"


def test_a_stale_copy_of_a_corpus_is_noticed(config: RunConfig, corpora: Path, tmp_path: Path) -> None:
    before = local_facts(config, CPU)
    kept = tmp_path / "kept"
    shutil.copytree(corpora / "text", kept)
    try:
        with (corpora / "text" / "train.idx").open("ab") as stream:
            stream.write(b"\0")
        assert changed(before, local_facts(config, CPU)) == ["data.text.text"]
        (corpora / "text" / "train.bin").unlink()
        unreadable = local_facts(config, CPU)
        assert unreadable.must_agree["data.text.text"] == "unreadable (No such file or directory)"
    finally:
        shutil.copytree(kept, corpora / "text", dirs_exist_ok=True)
    assert changed(before, local_facts(config, CPU)) == []


@pytest.mark.parametrize("edge_bytes", [1 << 20, 16])
def test_a_megatron_dataset_is_told_by_its_index(
    config: RunConfig, corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edge_bytes: int
) -> None:
    """Whole, or by both ends when it is large."""
    monkeypatch.setattr(rank_facts, "_EDGE_BYTES", edge_bytes)
    for suffix in (".idx", ".bin"):
        shutil.copy(corpora / "text" / f"train{suffix}", tmp_path / f"bare{suffix}")
    source = config.data.text["text"].model_copy(update={"path": str(tmp_path / "bare")})
    bare = config.model_copy(update={"data": config.data.model_copy(update={"text": {"text": source}})})
    before = local_facts(bare, CPU)
    index = (tmp_path / "bare.idx").read_bytes()
    (tmp_path / "bare.idx").write_bytes(index[:-1] + bytes([index[-1] ^ 1]))
    assert changed(before, local_facts(bare, CPU)) == ["data.text.text"]


def test_the_drivers_version_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\nGCC version: 11.4\n"
    (tmp_path / "version").write_text(told)
    monkeypatch.setattr(rank_facts, "_DRIVER", tmp_path / "version")
    assert rank_facts._driver() == "535.183.01"


def changed(before: Facts, after: Facts) -> list[str]:
    return [name for name, value in before.must_agree.items() if after.must_agree[name] != value]
