"""What a rank tells of itself: the same for the same files, another for other data."""

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.preflight import rank_facts
from glm130b.preflight.rank_facts import Facts, local_facts, settings_of
from tests.unit.preflight.conftest import A100

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


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU as torch would show it to a process that may see no other of the machine."""
    properties = SimpleNamespace(name="NVIDIA A100-SXM4-80GB", total_memory=80 * 2**30, uuid="0001")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (79 * 2**30, 80 * 2**30))
    return torch.device("cuda", 0)


def test_a_rank_tells_the_state_of_its_own_gpu(config: RunConfig, smi: Path, gpu: torch.device) -> None:
    line = A100.splitlines()[1].replace(" 0, 2,", " 1, 3,")
    smi.write_text(f"#!/bin/sh\ncase \"$*\" in *--id=GPU-0001) echo '{line}';; esac\n")
    facts = local_facts(config, gpu)
    limits = {"highest GPU clock": "1410 MHz", "GPU power limit": "400 W", "GPU ECC mode": "Enabled"}
    assert limits.items() <= facts.should_agree.items()
    assert facts.troubles == ("slowed down by heat (driver)", "uncorrected ECC errors since its reset: 1")


@pytest.mark.parametrize("program", ["exec sleep 60", "exit 9", "true", "echo nonsense"])
def test_a_gpu_that_nvidia_smi_does_not_tell_of_is_unknown(
    program: str, config: RunConfig, smi: Path, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all ranks alike, where there is no such program: nothing differs."""
    monkeypatch.setattr(rank_facts, "_GPU_SECONDS", 0.1)
    smi.write_text(f"#!/bin/sh\n{program}\n")
    facts = local_facts(config, gpu)
    limits = ("highest GPU clock", "GPU power limit", "GPU ECC mode")
    assert [facts.should_agree[name] for name in limits] == ["unknown"] * 3
    assert facts.troubles == ()
    smi.unlink()
    assert local_facts(config, gpu).should_agree == facts.should_agree


def test_the_drivers_version_is_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 2024\nGCC version: 11.4\n"
    (tmp_path / "version").write_text(told)
    monkeypatch.setattr(rank_facts, "_DRIVER", tmp_path / "version")
    assert rank_facts._driver() == "535.183.01"


def changed(before: Facts, after: Facts) -> list[str]:
    return [name for name, value in before.must_agree.items() if after.must_agree[name] != value]
