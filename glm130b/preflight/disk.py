"""The file system that the run's folder lies on: room, speed, clock."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from glm130b.config.derived import checkpoint_bytes
from glm130b.config.sections import RunConfig
from glm130b.preflight.finding import Finding, at_least, failed, ok, warning
from glm130b.preflight.site import Site
from glm130b.training.schedules import Schedules

_BLOCK_BYTES, _BLOCKS, _MOST_SECONDS = 4 * 2**20, 32, 3.0
_SYNCS = 5
_SLOW = 100e6
"""Bytes/s below which a checkpoint is waited for."""
_CLOCK_SECONDS = 2.0
"""More than a time stamp that is rounded to seconds is off."""
_FOLDER_MEND = "name another folder (folder=...), or give this user the right to write there"


def room(site: Site) -> Iterator[Finding]:
    """Free space against the checkpoints that lie there at the same time, less those that are there already: one at
    least, since the next is written before an old one goes. They are counted, not measured: every node would ask the
    file system for every shard."""
    folder = site.writable_folder
    free = shutil.disk_usage(folder).free
    value = f"{free / 1e9:,.1f} GB free in {folder}"
    if site.config is None:
        yield at_least("disk room", value, free, wanted=1e9, needed=0, mend="free some")
        return
    size = checkpoint_bytes(site.config)
    newest, all_kept = kept_checkpoints(site.config)
    there = sum(1 for _ in site.run_folder.glob("checkpoints/step-*")) if site.run_folder else 0
    turning_over = min(there, newest - 1)  # the others there are kept for ever, and make no room
    wanted = max(all_kept - there, 1) * size
    mend = f"free {max(wanted - free, 0) / 1e9:,.1f} GB, or lower checkpoint.keep_last"
    yield at_least(
        "disk room",
        f"{value}, {all_kept} checkpoint{'s' * (all_kept > 1)} of {size / 1e9:,.2f} GB kept at most, "
        f"{there} there already",
        free,
        wanted=wanted,
        needed=max(newest - turning_over, 1) * size,
        mend=mend,
    )


def kept_checkpoints(config: RunConfig) -> tuple[int, int]:
    """How many lie on disk at once: the newest that stay and the one being written; and with those kept for ever."""
    checkpoint = config.checkpoint
    steps = Schedules(config).num_steps
    written = -(-steps // checkpoint.every_steps)
    newest = min(written, (checkpoint.keep_last or 1) + 1)
    if checkpoint.keep_last is None:
        return newest, written
    for_ever = steps // checkpoint.keep_every_steps if checkpoint.keep_every_steps else 0
    return newest, min(written, newest + for_ever)


def disk_speed(site: Site) -> Iterator[Finding]:
    """Write 128 MiB, or what 3 s allow, and bring them to the disk; then a few small syncs."""
    try:
        speed, sync = _measured(site.writable_folder)
    except OSError as error:
        yield failed("disk speed", f"128 MiB cannot be written ({error.strerror})", _FOLDER_MEND)
        return
    value = f"{speed / 1e6:,.0f} MB/s with fsync, {sync * 1e3:.1f} ms a small fsync"
    if site.config:
        seconds = site.checkpoint_share_bytes / speed
        value += f": {seconds:,.0f} s for this machine's {site.checkpoint_share_bytes / 1e9:,.2f} GB of a checkpoint"
    mend = "let folder lie on a faster file system, or save less often"
    yield at_least("disk speed", value, speed, wanted=_SLOW, needed=0, mend=mend)


def _measured(folder: Path) -> tuple[float, float]:
    """Bytes/s of a large file, and the median of the seconds that a small sync takes."""
    with _probe(folder) as file:
        block, written, began = os.urandom(_BLOCK_BYTES), 0, time.perf_counter()
        for _ in range(_BLOCKS):
            written += file.write(block)
            if time.perf_counter() - began > _MOST_SECONDS:
                break
        os.fsync(file.fileno())
        speed = written / (time.perf_counter() - began)
        return speed, statistics.median(_sync_seconds(file.fileno()) for _ in range(_SYNCS))


def clock(site: Site) -> Iterator[Finding]:
    """A file may be made in the run's folder, and its time is this machine's: a server's clock stamps it."""
    folder = site.writable_folder
    try:
        with _probe(folder) as file:
            before = time.time()
            file.write(b"now")
            os.fsync(file.fileno())
            stamped, after = os.fstat(file.fileno()).st_mtime, time.time()
    except OSError as error:
        yield failed("folder", f"{folder}: cannot be written to ({error.strerror})", _FOLDER_MEND)
        return
    yield ok("folder", f"{folder} can be written to")
    offset = max(before - stamped, stamped - after, 0.0)
    value = f"{offset:.1f} s from the file system's"
    if offset > _CLOCK_SECONDS:
        yield warning("clock", value, "start a time service (chrony, ntpd) here and on the file server")
    else:
        yield ok("clock", value)


def _probe(folder: Path) -> "tempfile._TemporaryFileWrapper[bytes]":
    """A file that goes when it is closed, unbuffered."""
    return tempfile.NamedTemporaryFile(dir=folder, prefix=".preflight-", buffering=0)


def _sync_seconds(descriptor: int) -> float:
    began = time.perf_counter()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return time.perf_counter() - began
