"""Cores, memory and limits against what a node with GPUs needs."""

import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.preflight.machine import cores, host_memory, open_files, shared_memory
from glm130b.preflight.site import Site

GIB = 2**30
CONFIG = load_config(Path(__file__).parents[3] / "configs" / "glm-130b.yaml")
NODE = Site(8, CONFIG, world_size=768)
Usage = namedtuple("Usage", "total used free")


def test_a_site_knows_its_share_of_the_job() -> None:
    assert (NODE.num_processes, NODE.job_size) == (8, 768)
    assert NODE.checkpoint_share_bytes == pytest.approx(130e9 * 12 * 8 / 768, rel=0.02)
    assert Site(0).num_processes == 1
    assert Site(0, CONFIG, world_size=4).num_processes == 4


@pytest.mark.parametrize(("number", "state"), [(96, "ok"), (12, "warning"), (4, "FAIL")])
def test_cores(monkeypatch: pytest.MonkeyPatch, number: int, state: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(number)))
    assert [found.state for found in cores(NODE)] == [state]


@pytest.mark.parametrize(("available", "state"), [(900, "ok"), (50, "warning"), (10, "FAIL")])
def test_host_memory(monkeypatch: pytest.MonkeyPatch, available: int, state: str) -> None:
    """8 of 768 ranks copy 16 GB of a checkpoint of GLM-130B."""
    told = f"MemTotal: {1000 * GIB // 1024} kB\nMemAvailable: {available * GIB // 1024} kB\nHugePages_Total: 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: told)
    (found,) = host_memory(NODE)
    assert found.state == state
    assert "15.0 GiB needed for 8 processes" in found.value


@pytest.mark.parametrize(("site", "state"), [(NODE, "FAIL"), (Site(1), "warning"), (Site(0), "warning")])
def test_the_shared_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, site: Site, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 * 2**20, 0, 64 * 2**20))
    assert [found.state for found in shared_memory(site)] == [state]


@pytest.mark.parametrize(
    ("limit", "state"), [(resource.RLIM_INFINITY, "ok"), (6144, "ok"), (4096, "warning"), (256, "FAIL")]
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, limit: int, state: str) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    (found,) = open_files(NODE)
    assert found.state == state
    assert found.mend == ("" if state == "ok" else "ulimit -n 6144")
