"""What one rank knows of itself at the start, cheap to tell: the ranks compare it (``rank_checks.py``)."""

import hashlib
import platform
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from glm130b.config.flat import flat
from glm130b.config.load import dump_config
from glm130b.config.sections import RunConfig
from glm130b.data.corpus.fingerprint import corpus_fingerprint, file_fingerprint
from glm130b.environment import library_settings
from glm130b.installed import versions
from glm130b.preflight.accelerators import nccl_version
from glm130b.preflight.machine import free_host_bytes
from glm130b.preflight.nvidia import Gpu, read_gpus

_DRIVER = Path("/proc/driver/nvidia/version")
_GPU_SECONDS = 10.0


@dataclass(frozen=True)
class Facts:
    """One rank's, of a size that a job of a thousand ranks can gather: some KB."""

    host: str
    config: str
    """Digest of the resolved config; the keys that differ are asked for when it differs."""
    must_agree: Mapping[str, str]
    """By name; a rank with another value would compute something else, or not at all."""
    should_agree: Mapping[str, str]
    """By name; a rank with another value may be slower, or be the first to fail."""
    free: Mapping[str, int]
    """Bytes of memory by kind."""
    troubles: tuple[str, ...] = ()
    """Of its GPU's hardware, in words."""


def local_facts(config: RunConfig, device: torch.device) -> Facts:
    """This rank's. No collective; reads the manifests of the corpora, not the corpora."""
    gpu, free = None, {"host memory": free_host_bytes()}
    should_agree = {
        "Python": platform.python_version(),
        "kernel": platform.release(),
        **library_settings(),
    }
    computing = {"CUDA": torch.version.cuda, "NCCL": nccl_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        gpu = _read_gpu(f"GPU-{properties.uuid}")
        should_agree["GPU"] = f"{properties.name} {properties.total_memory / 2**30:.0f} GiB"
        should_agree["driver"] = _driver()
        should_agree |= _limits(gpu)
        free["GPU memory"] = torch.cuda.mem_get_info(device)[0]
    return Facts(
        host=socket.gethostname(),
        config=hashlib.sha256(dump_config(config).encode()).hexdigest()[:16],
        must_agree={
            **versions(),
            **{name: version for name, version in computing.items() if version},
            **dict(_data(config)),
        },
        should_agree=should_agree,
        free={kind: amount for kind, amount in free.items() if amount is not None},
        troubles=gpu.troubles if gpu else (),
    )


def settings_of(config: RunConfig) -> dict[str, str]:
    """Every key of a resolved config, with its value as text."""
    return {key: str(value) for key, value in flat(config.model_dump(mode="json"))}


def _data(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The tokenizer and every corpus as this machine sees them."""
    yield "data.tokenizer", _seen(file_fingerprint, config.data.tokenizer)
    for section in ("text", "instructions"):
        for name, source in getattr(config.data, section).items():
            yield f"data.{section}.{name}", _seen(corpus_fingerprint, source.path)


def _seen(fingerprint: Callable[[Path], str], path: str) -> str:
    try:
        return fingerprint(Path(path))
    except OSError as error:
        return f"unreadable ({error.strerror})"
    except ValueError as error:
        return f"unreadable ({error})"


def _read_gpu(uuid: str) -> Gpu | None:
    """By its UUID, since `nvidia-smi` does not count as CUDA_VISIBLE_DEVICES does; None where it gives no answer, which
    a start is not to wait or to fail for."""
    try:
        (gpu,) = read_gpus(uuid, seconds=_GPU_SECONDS)
    except (OSError, ValueError):
        return None
    return gpu


def _limits(gpu: Gpu | None) -> dict[str, str]:
    """What an administrator, or a repair, may have left unlike on one GPU of many."""
    clock, power, ecc = (gpu.highest_clock, gpu.power_limit, gpu.ecc_mode) if gpu else (None, None, None)
    return {
        "highest GPU clock": f"{clock} MHz" if clock else "unknown",
        "GPU power limit": f"{power} W" if power else "unknown",
        "GPU ECC mode": ecc or "unknown",
    }


def _driver() -> str:
    """Of the kernel, which is the one that counts, whether `nvidia-smi` answers or not."""
    try:
        words = _DRIVER.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")
