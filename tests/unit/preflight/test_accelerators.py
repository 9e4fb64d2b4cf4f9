"""What is made of the GPUs' state, and of InfiniBand ports."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glm130b.preflight.accelerators import gpus, infiniband_in, number_of, nvlinks_of, rows_of, state_of
from glm130b.preflight.finding import Finding
from glm130b.preflight.nvidia import Gpu, RemappedRows
from glm130b.preflight.site import Site
from tests.unit.preflight.conftest import A100

GIB = 2**30
GOOD = Gpu(0, "NVIDIA A100-SXM4-80GB", "535", "Enabled", 80 * GIB, 79 * GIB, 34, 210, 1410, 400, 0, 0)


def troubles(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    return [(it.check, it.state, it.value) for it in findings if it.state in ("warning", "FAIL")]


def node(**second: Any) -> list[Gpu]:
    """Two GPUs, of which the second differs."""
    return [GOOD, replace(GOOD, index=1, **second)]


def test_a_healthy_node_has_no_trouble() -> None:
    found = [*number_of(node(), 2), *state_of(node()), *rows_of([RemappedRows(False, False)] * 2)]
    assert troubles(found) == []
    assert "2 x NVIDIA A100-SXM4-80GB 80 GiB" in found[0].value


@pytest.mark.parametrize(
    ("second", "check", "state", "words"),
    [
        ({"free_bytes": 20 * GIB}, "GPU memory", "FAIL", "GPU 1 20.0 GiB free"),
        ({"temperature": 80}, "GPU heat", "warning", "80 C at most (GPU 1)"),
        ({"temperature": 91}, "GPU heat", "FAIL", "91 C"),
        ({"reasons": 0x48}, "GPU clocks", "FAIL", "GPU 1 hardware slowdown, GPU 1 slowed down by heat (hardware)"),
        ({"errors_since_reset": 1, "errors_ever": 1}, "GPU ECC", "FAIL", "GPU 1 1"),
        ({"errors_ever": 3}, "GPU ECC", "warning", "GPU 1 3"),
    ],
)
def test_a_sick_gpu_is_named(second: dict[str, Any], check: str, state: str, words: str) -> None:
    ((found, how, value),) = troubles(state_of(node(**second)))
    assert (found, how) == (check, state)
    assert words in value


def test_gpus_of_two_kinds_and_gpus_that_torch_does_not_see() -> None:
    assert troubles(number_of(node(name="NVIDIA A100-SXM4-40GB"), 2))[0][1] == "warning"
    assert troubles(number_of(node(), 1)) == [("GPUs", "warning", "2 x NVIDIA A100-SXM4-80GB 80 GiB, torch sees 1")]


def test_a_machine_that_has_lost_gpus_is_unfit(smi: Path) -> None:
    """One as its driver shows it, or all with the driver itself; without ``--gpus`` it trains on what is there."""
    smi.write_text(f"#!/bin/sh\ncase \"$*\" in *query-gpu*) printf '%s' '{A100}';; esac\n")
    some, none = Site(num_gpus=2, expected_gpus=4), Site(num_gpus=0, expected_gpus=4)
    assert ("GPUs", "FAIL", "2 x NVIDIA A100-SXM4-80GB 80 GiB, torch can use 2 of 4") in troubles(gpus(some))
    assert troubles(gpus(none)) == [("GPUs", "FAIL", "torch can use none of 4")]
    assert some.num_processes == none.num_processes == 4, "memory and cores are judged for all of them"
    assert "GPUs" not in [check for check, _, _ in troubles(gpus(Site(num_gpus=2)))]
    assert [finding.state for finding in gpus(Site(num_gpus=0))] == ["skipped"]


def test_rows_that_wait_for_a_reset() -> None:
    rows = [RemappedRows(False, False), RemappedRows(True, False), RemappedRows(False, True)]
    assert [value for _, _, value in troubles(rows_of(rows))] == [
        "a bad memory row waits for a reset: GPU 1",
        "no spare memory row is left: GPU 2",
    ]
    assert list(rows_of([])) == [], "cards that remap no rows"


def test_links() -> None:
    whole, half, none = ["25 GB/s"] * 12, ["25 GB/s"] * 6 + ["<inactive>"] * 6, ["<inactive>"] * 12
    assert [it.value for it in nvlinks_of([whole, whole])] == ["12 links of 25 GB/s on every GPU"]
    assert troubles(nvlinks_of([whole, half])) == [("NVLink", "FAIL", "GPU 1 6 active links, the others 12")]
    assert troubles(nvlinks_of([none, none]))[0][1] == "warning"
    assert troubles(nvlinks_of([[]])) == [], "one GPU needs none"


@pytest.fixture
def ports(tmp_path: Path) -> Path:
    """Two adapters of one active port each."""
    for name in ("mlx5_0", "mlx5_1"):
        port = tmp_path / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "link_layer").write_text("InfiniBand\n")
        (port / "state").write_text("4: ACTIVE\n")
        (port / "rate").write_text("200 Gb/sec (4X HDR)\n")
    return tmp_path


def test_infiniband(ports: Path) -> None:
    found = infiniband_in(ports, needs_network=True)
    assert (found.state, found.value) == ("ok", "2 active ports of 200 Gb/sec (4X HDR)")
    (ports / "mlx5_1" / "ports" / "1" / "state").write_text("1: DOWN\n")
    found = infiniband_in(ports, needs_network=True)
    assert found.state == "warning"
    assert found.value.endswith("down: mlx5_1/1")


def test_an_adapter_in_ethernet_mode_is_none(ports: Path) -> None:
    (ports / "mlx5_1" / "ports" / "1" / "link_layer").write_text("Ethernet\n")
    assert infiniband_in(ports, needs_network=True).value == "1 active port of 200 Gb/sec (4X HDR)"


def test_a_machine_without_infiniband(tmp_path: Path) -> None:
    assert infiniband_in(tmp_path, needs_network=False).state == "skipped"
    assert infiniband_in(tmp_path, needs_network=True).state == "warning"
