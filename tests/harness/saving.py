"""Runs that save, fail to save and are restored, inside the processes of a test."""

import errno
import os
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from glm130b.checkpoint import checksums
from glm130b.checkpoint.finding import newest_good
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.saver import Saver
from glm130b.config import patience
from glm130b.config.sections import RunConfig
from glm130b.durable import DurableFile, FileSummary
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from glm130b.training.journal import Event
from glm130b.training.metrics import Record
from glm130b.training.progress import Progress
from glm130b.training.roll_call import RollCall
from tests.harness.journal import Told
from tests.harness.training import StepNumbers, live_run


def save_while_stepping(launch: Launch, config: RunConfig, folder: Path, before: int, after: int) -> list[StepNumbers]:
    """Take ``before`` steps, save in place into ``at_rest`` and a copy into ``meanwhile``, whose files come to their
    end only when ``after`` more steps are taken."""
    run = live_run(config, launch)
    progress, _ = run.take_steps(before)
    run.store(folder / "at_rest").save(progress)
    store, trained = run.store(folder / "meanwhile"), threading.Event()
    close = DurableFile.close

    def wait(file: DurableFile) -> FileSummary:
        assert trained.wait(60)
        return close(file)

    copy, told = store.copy(), {"step": progress.step, "description": store.describe(progress).to_json()}
    with patch.object(DurableFile, "close", wait):
        thread = threading.Thread(target=store.write, args=(copy,), kwargs=told)
        thread.start()
        _, numbers = run.take_steps(after, progress)
        assert thread.is_alive()
        trained.set()
        thread.join()
    disconnect()
    return numbers


def save_on_a_full_disk(
    launch: Launch, config: RunConfig, folder: Path, count: int
) -> tuple[list[StepNumbers], list[Event]]:
    """Train and save as ``pretrain`` does, while one rank's disk is full from step 2 to step 4."""
    run = live_run(config, launch)
    checkpoints, notes = CheckpointFolder(folder), Told()
    store = run.store(folder)
    saver = Saver(
        store,
        store.describe,
        config=config.checkpoint,
        train_samples=config.train_samples,
        stall_seconds=config.supervision.stall_seconds,
        topology=run.topology,
        journal=notes,
    )
    roll_call = RollCall([saver], run.topology)
    write, progress, numbers = DurableFile.write, Progress(), []
    saver.before_training(progress)

    def full_for_one(file: DurableFile, data: bytes | memoryview) -> None:
        if launch.rank == launch.world_size - 1 and 2 <= progress.step <= 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(file.path))
        write(file, data)

    with patch.object(DurableFile, "write", full_for_one):
        for _ in range(count):
            progress, step = run.take_steps(1, progress)
            saver.after_step(progress, Record("train", progress.step, progress.samples, {}))
            if saver._save:
                saver._save.error()  # so that the test knows when it ends
            roll_call.after_step(progress, Record("train", progress.step, progress.samples, {}))
            numbers += step
    assert checkpoints.latest() is not None
    disconnect()
    return numbers, notes.events


def find(
    launch: Launch, config: RunConfig, folder: Path, patience_seconds: float, until_step: int | None = None
) -> tuple[str | None, list[str]]:
    """Name of the checkpoint that a restart takes, and what it tells about the others."""
    run, notes = live_run(config, launch), Told()
    found = newest_good(
        CheckpointFolder(folder), run.topology, notes, patience_seconds=patience_seconds, until_step=until_step
    )
    disconnect()
    return found[0].name if found else None, [f"{event.name}: {event.message}" for event in notes.events]


def find_where_reads_fail(
    launch: Launch, config: RunConfig, folder: Path, code: int, part: str, rank: int | None = None
) -> tuple[str | None, list[str]]:
    """As ``find``, where reading the files with ``part`` in their path ends with an error, on ``rank`` or on all."""
    read = checksums._sha256

    def fail(file: Path) -> str:
        if rank in (None, launch.rank) and part in str(file):
            raise OSError(code, os.strerror(code))
        return read(file)

    with patch.object(checksums, "_sha256", fail):
        return find(launch, config, folder, 0.0)


def find_after_trouble(launch: Launch, config: RunConfig, folder: Path) -> tuple[str | None, list[str]]:
    """Name of the checkpoint that a restart takes, and the files that this rank hashes for it, where on the last rank
    the first one cannot be read at first, and after that ``run.json`` cannot."""
    sha256, read_text, tries = checksums._sha256, Path.read_text, 0
    hashed: list[str] = []

    def hash_file(file: Path) -> str:
        hashed.append(file.name)
        if launch.rank == launch.world_size - 1 and len(hashed) == 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return sha256(file)

    def read(file: Path, **options: Any) -> str:
        nonlocal tries
        if file.name == "run.json":
            tries += 1
            if tries == 1:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(file))
        return read_text(file, **options)

    with (
        patch.object(checksums, "_sha256", hash_file),
        patch.object(Path, "read_text", read),
        patch.object(patience.time, "sleep", lambda _: None),
    ):
        found, _ = find(launch, config, folder, 10.0)
    return found, hashed


def weights_alone(launch: Launch, config: RunConfig, checkpoint: Path, count: int) -> tuple[Any, list[StepNumbers]]:
    """Start a run from a checkpoint's weights: its counters, and its first steps."""
    run = live_run(config, launch)
    run.store(checkpoint.parent).load_weights(checkpoint)
    counters = run.engine.counters()
    _, numbers = run.take_steps(count)
    disconnect()
    return counters, numbers
