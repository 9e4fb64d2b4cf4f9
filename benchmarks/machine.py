"""The machine a benchmark ran on, and its clock."""

import time
from pathlib import Path

import torch

PEAK_TFLOPS = {"A100": 312.0, "H100": 989.0, "H200": 989.0}
"""Dense fp16 and bf16 matrix products of the SXM boards, from NVIDIA's data sheets."""


def describe_machine(device: torch.device) -> str:
    """One line: processor, threads, PyTorch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    name = models[0].partition(":")[2].strip() if models else "a CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak_tflops(device: torch.device) -> float | None:
    """Of a GPU that the table knows."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_TFLOPS.items() if key in name), None)


def now(device: torch.device) -> float:
    """Seconds, when everything that was asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
