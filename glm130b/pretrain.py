"""The life of a run in one process: from its newest good checkpoint, leg by leg, to an end."""

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

from glm130b.announcement import announcement
from glm130b.assembly import Job, Leg, Standing
from glm130b.checkpoint.description import Description, Resume
from glm130b.checkpoint.finding import damages, newest_good
from glm130b.checkpoint.lock import RunLock
from glm130b.config.derived import grid_size
from glm130b.config.errors import FileSystemGone, UserError, unreadable
from glm130b.config.load import dump_config
from glm130b.config.patience import is_gone, patiently
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch, MeetingPoint
from glm130b.parallel.agreement import from_first_rank
from glm130b.parallel.heartbeat import Heartbeat
from glm130b.parallel.meeting import meet
from glm130b.parallel.topology import disconnect
from glm130b.training.ending import Ending
from glm130b.training.interruption import Interruption
from glm130b.training.journal import Event, now
from glm130b.training.progress import Progress
from glm130b.training.stability.memory import Memory
from glm130b.training.stability.verdict import Rewind

_SLACK = timedelta(minutes=2)
"""By which a collective is more patient than the heartbeat, which says who hangs."""


def pretrain(config: RunConfig, launch: Launch) -> int:
    """Train one run to its end, or until it is asked to end; the exit status. Every process of the job calls this."""
    started, folder = time.monotonic(), Path(config.folder) / config.name
    lock = _locked(folder, config, launch) if launch.rank == 0 else None
    patience = timedelta(seconds=config.supervision.stall_seconds)
    meeting = meet(launch, MeetingPoint.from_environment(), patience=patience)
    with _heard(Heartbeat(meeting, config.supervision)) as heartbeat:
        if launch.rank >= grid_size(config, launch.world_size):
            heartbeat.stand_by()
            return 0
        with Job.assembled(config, folder, meeting=meeting, heartbeat=heartbeat, timeout=patience + _SLACK) as job:
            interruption = Interruption(
                folder,
                is_first_rank=launch.rank == 0,
                time_budget_minutes=config.supervision.time_budget_minutes,
                started=started,
            )
            standing = _beginning(job)
            if lock and lock.warning:
                job.journal.tell(Event("no lock", standing.progress.step, lock.warning))
            # To the very end of the records: a launcher may send signals to who has saved already.
            with interruption, job.recorder:
                ending = _train_in_legs(job, standing, interruption)
                if launch.rank == 0:
                    ending.write(folder)
                disconnect()
    if lock:
        lock.release()
    return ending.exit_status(config.supervision)


def _locked(folder: Path, config: RunConfig, launch: Launch) -> RunLock:
    """This run's folder, for this run alone.

    At a restart it is there, unless the first start was killed before it made it, or its file system has gone: that is
    waited for, and a run is begun anew only where the folder of all runs is there, and not without a word.
    """

    def look() -> None:
        if launch.restarts and not folder.is_dir():
            raise OSError(errno.ENODEV, "is not there although the run has been started before", str(folder))

    seconds = config.checkpoint.patience_seconds
    try:
        patiently(look, seconds=seconds, may_pass=is_gone, tell=lambda told: print(f"glm130b: {told}", flush=True))
    except OSError as error:
        if not folder.parent.is_dir():
            raise FileSystemGone(f"{folder}: {error.strerror}; bring the file system back, and start again") from error
        print(f"glm130b: {folder}: {error.strerror}, for {seconds:.0f} s: the run begins anew", flush=True)
    return RunLock.take(folder)


@contextmanager
def _heard(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    """Until this process ends, and the others learn how."""
    try:
        yield heartbeat
    except BaseException as error:
        heartbeat.failed(error)
        raise
    heartbeat.close()


def _beginning(job: Job) -> Standing:
    """Load what the run goes on from, and say so."""
    config = job.config
    if job.found:
        checkpoint, description = job.found
        job.heartbeat.enter(f"loading {checkpoint.name}")
        progress = job.store.restore(checkpoint, description)
        resumes = (*description.resumes, _resume(job, description))
        standing = Standing(progress, description.guard, resumes)
    else:
        if config.initial_weights:
            job.heartbeat.enter(f"loading {config.initial_weights}")
            _load_initial_weights(job, Path(config.initial_weights))
        standing = Standing(Progress(), Memory(), ())
    if job.topology.rank == 0:
        _open_files(job, standing.progress)
        told = announcement(
            config,
            topology=job.topology,
            stage=job.stage,
            saved=job.found,
            folder=job.folder,
            sources=job.train_rows.sources,
            eras=job.train_rows.mixture.eras,
        )
        print(told, flush=True)
    for resume in standing.resumes[-1:]:
        job.journal.tell(Event("resume", resume.step, _in_words(resume), asdict(resume)))
    return standing


def _train_in_legs(job: Job, standing: Standing, interruption: Interruption) -> Ending:
    # An early rewind must find something, and a restart must know of a rewind.
    is_to_be_saved = job.found is None and job.config.stability.may_rewind
    retry_step = None
    while True:
        with Leg(job, standing, interruption, retry_step=retry_step) as leg:
            if is_to_be_saved:
                leg.saver.save_now(standing.progress)
            standing = leg.train()
            if ending := _ending(job, leg, standing, interruption):
                return ending
            leg.saver.settle(standing.progress)
        is_to_be_saved, retry_step = False, leg.saver.retry_step
        if leg.rewind:
            taken_back = _taken_back(job, standing, leg.rewind)
            if taken_back is None:
                return Ending.STOPPED
            standing, is_to_be_saved, retry_step = taken_back, True, None


def _ending(job: Job, leg: Leg, standing: Standing, interruption: Interruption) -> Ending | None:
    """How the run ends where a leg has, saved; None when another leg follows."""
    progress, verdict = standing.progress, leg.watch.verdict
    stopped = verdict is not None and verdict.stop
    complete = progress.samples >= job.config.train_samples
    if leg.rewind or not (stopped or complete or interruption.reason):
        return None
    leg.saver.save_now(progress)
    if complete:
        return Ending.COMPLETE
    why = (
        "by the stability guard: look at events.jsonl and docs/stability.md; the same command goes on from here"
        if stopped
        else f"because of {interruption.reason}; the same command goes on"
    )
    job.journal.tell(Event("ended", progress.step, f"saved, and ended {why}"))
    return Ending.STOPPED if stopped else Ending.REQUEUE


def _taken_back(job: Job, standing: Standing, rewind: Rewind) -> Standing | None:
    """The standing of the newest good checkpoint that is old enough, loaded; what has been decided since stays decided.

    None when there is none so old: then nothing but a person can help.
    """
    found = newest_good(
        job.checkpoints,
        job.topology,
        job.journal,
        patience_seconds=job.config.checkpoint.patience_seconds,
        until_step=rewind.before_step,
        enter=job.heartbeat.enter,
    )
    step = standing.progress.step
    if found is None:
        message = f"there is no checkpoint of step {rewind.before_step} or before; the run stops, unsaved"
        job.journal.tell(Event("rewind failed", step, message))
        return None
    checkpoint, description = found
    job.heartbeat.enter(f"loading {checkpoint.name}")
    progress = job.store.restore(checkpoint, description)
    from_first_rank(lambda: job.checkpoints.go_back_to(checkpoint), job.topology)
    job.journal.tell(Event("rewound", step, f"goes on from {checkpoint.name}, {step - progress.step} steps back"))
    return replace(standing, progress=progress, guard=standing.guard.rewound_to(description.guard))


def _open_files(job: Job, progress: Progress) -> None:
    """On the first rank: the run's folder as it is while the run trains."""
    job.checkpoints.create()
    job.checkpoints.abandon_after(progress.step)
    try:
        (job.folder / "config.yaml").write_text(dump_config(job.config), encoding="utf-8")
        Ending.clear(job.folder)
    except OSError as error:
        job.journal.tell(Event("file system full or gone", progress.step, str(error)))


def _load_initial_weights(job: Job, checkpoint: Path) -> None:
    try:
        problems = damages(checkpoint, job.topology)
    except OSError as error:
        mend = "let every process read it, or name another checkpoint"
        raise unreadable(f"initial_weights: {error.filename}", error, mend=mend) from error
    if problems:
        raise UserError([f"initial_weights: {problem}" for problem in problems])
    job.store.load_weights(checkpoint)


def _resume(job: Job, description: Description) -> Resume:
    return Resume(now(), description.progress.step, job.topology.world_size, description.changes(job.config))


def _in_words(resume: Resume) -> str:
    changes = "; ".join(f"{key}: {then!r} -> {new!r}" for key, (then, new) in resume.changes.items())
    return f"with {changes}" if changes else "with the config that it was saved with"
