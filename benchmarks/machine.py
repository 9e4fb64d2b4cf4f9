"""The machine a benchmark ran on, and its clock."""

import time
from pathlib import Path

import torch

from glm130b.config.hardware import recognised


def describe_machine(device: torch.device) -> str:
    """One line: processor, threads, PyTorch."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    name = models[0].partition(":")[2].strip() if models else "a CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak_tflops(device: torch.device) -> float | None:
    """In fp16 and bf16, of a GPU that we know."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    known = recognised(properties.name, properties.total_memory)
    return known.peak_half / 1e12 if known else None


def now(device: torch.device) -> float:
    """Seconds, when everything that was asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
