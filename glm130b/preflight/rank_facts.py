"""What one rank knows of itself at the start, cheap to tell: the ranks compare it (``rank_checks.py``)."""

import hashlib
import platform
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glm130b.config.files import CORPUS_FILES
from glm130b.config.load import dump_config
from glm130b.config.sections import RunConfig
from glm130b.data.corpus.corpus import is_bare
from glm130b.data.corpus.manifest import NAME as MANIFEST
from glm130b.environment import library_settings
from glm130b.installed import versions
from glm130b.preflight.accelerators import nccl_version
from glm130b.preflight.machine import free_host_bytes

_DRIVER = Path("/proc/driver/nvidia/version")
_EDGE_BYTES = 1 << 20


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


def local_facts(config: RunConfig, device: torch.device) -> Facts:
    """This rank's. No collective; reads the manifests of the corpora, not the corpora."""
    free = {"host memory": free_host_bytes()}
    should_agree = {
        "Python": platform.python_version(),
        "kernel": platform.release(),
        **library_settings(),
    }
    computing = {"CUDA": torch.version.cuda, "NCCL": nccl_version()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        should_agree["GPU"] = f"{properties.name} {properties.total_memory / 2**30:.0f} GiB"
        should_agree["driver"] = _driver()
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
    )


def settings_of(config: RunConfig) -> dict[str, str]:
    """Every key of a resolved config, with its value as text."""
    return dict(_flat(config.model_dump(mode="json")))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, str(value)


def _data(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The tokenizer and every corpus as this machine sees them."""
    yield "data.tokenizer", _seen(Path(config.data.tokenizer))
    for section in ("text", "instructions"):
        for name, source in getattr(config.data, section).items():
            path = Path(source.path)
            if is_bare(path):
                index, tokens = (path.with_name(path.name + suffix) for suffix in (".idx", ".bin"))
                seen = _seen(index, tokens, edge=_EDGE_BYTES)
            else:  # the manifest holds the SHA-256 of every file
                seen = _seen(path / MANIFEST, *(path / file for file in CORPUS_FILES))
            yield f"data.{section}.{name}", seen


def _seen(read: Path, *sized: Path, edge: int = 0) -> str:
    """Size of all files, and a digest of each one's size and of the contents of the first; with ``edge`` only so many
    bytes of each of its ends."""
    digest, total = hashlib.sha256(), 0
    try:
        for file in (read, *sized):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\0".encode())
            total += size
        with read.open("rb") as stream:
            digest.update(stream.read(edge or -1))
            stream.seek(max(edge, read.stat().st_size - edge))
            digest.update(stream.read())
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return f"{total:,} bytes ({digest.hexdigest()[:12]})"


def _driver() -> str:
    """Of the kernel, which is the one that counts; nvidia-smi takes seconds."""
    try:
        words = _DRIVER.read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")
