"""Accelerators by the names that PyTorch tells of them."""

import pytest

from glm130b.config.hardware import recognised

GIB = 2**30


@pytest.mark.parametrize(
    ("device_name", "memory_gib", "expected"),
    [
        ("Tesla V100-SXM2-32GB", 32, "v100-32g"),
        ("NVIDIA A100-SXM4-40GB", 40, "a100-40g"),
        ("NVIDIA A100-SXM4-80GB", 79, "a100-80g"),
        ("NVIDIA H100 80GB HBM3", 79, "h100"),
        ("NVIDIA H200", 140, "h200"),
    ],
)
def test_the_boards_of_large_machines(device_name: str, memory_gib: int, expected: str) -> None:
    known = recognised(device_name, memory_gib * GIB)
    assert known is not None
    assert known.name == expected


@pytest.mark.parametrize(
    "device_name",
    [
        "Tesla V100-PCIE-32GB",
        "Tesla V100S-PCIE-32GB",
        "NVIDIA A100-PCIE-40GB",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA GH200 480GB",
        "NVIDIA GeForce RTX 4090",
    ],
)
def test_slower_boards_of_the_same_chips_are_not_taken_for_them(device_name: str) -> None:
    assert recognised(device_name, 80 * GIB) is None
