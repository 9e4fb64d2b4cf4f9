"""A job of real processes: who is stopped, killed, stuck or fails ends it within its time, and is named once."""

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist
from torch.distributed import TCPStore

from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.supervision import SupervisionConfig
from glm130b.environment import Launch, MeetingPoint
from glm130b.parallel.heartbeat import Heartbeat
from glm130b.parallel.meeting import Meeting, meet

SILENCE = 1.5
PATIENCE = timedelta(seconds=90)

HOST = re.escape(os.uname().nodename)
Life = Callable[[Heartbeat, Meeting], None]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.harness.preload"])


class Ended(NamedTuple):
    statuses: dict[int, int | None]
    """By rank, of those that were waited for."""
    told: list[str]
    """What the heartbeats told, all processes together."""
    seconds: float


class Job:
    """Processes that live a ``life`` each; the server is kept by rank 0, or by this process in a launcher's place."""

    def __init__(
        self, folder: Path, lives: list[Life], *, kept_by_launcher: bool = False, stall_seconds: float = 60.0
    ) -> None:
        self.folder = folder
        self.server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        point = MeetingPoint("127.0.0.1", self.server.port, kept_by_launcher)
        if not kept_by_launcher:
            del self.server  # rank 0 takes its port
        self.processes: list[ForkServerProcess] = []
        for rank, life in enumerate(lives):
            launch = Launch(rank=rank, local_rank=rank, world_size=len(lives))
            supervision = SupervisionConfig(silence_seconds=SILENCE, stall_seconds=stall_seconds)
            args = (folder / f"{rank}", launch, point, supervision, life)
            self.processes.append(_CONTEXT.Process(target=_live, args=args))
            self.processes[-1].start()

    def wait_until_all_are_busy(self) -> None:
        self.wait_until(lambda: all((self.folder / f"{rank}.busy").exists() for rank in range(len(self.processes))))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, self.told()
            time.sleep(0.02)

    def release(self) -> None:
        """Let those who live ``until_released`` go."""
        (self.folder / "released").touch()

    def strike(self, sign: signal.Signals, *ranks: int) -> None:
        for rank in ranks:
            os.kill(self.processes[rank].pid or 0, sign)

    def end(self, *ranks: int, within: float = 30.0) -> Ended:
        """Wait for these ranks, or all."""
        started = time.monotonic()
        awaited = ranks or range(len(self.processes))
        for rank in awaited:
            self.processes[rank].join(max(started + within - time.monotonic(), 0))
        seconds = time.monotonic() - started
        return Ended({rank: self.processes[rank].exitcode for rank in awaited}, self.told(), seconds)

    def told(self) -> list[str]:
        texts = (self.folder / f"{rank}" for rank in range(len(self.processes)))
        lines = (line for text in texts if text.exists() for line in text.read_text().splitlines())
        return [line for line in lines if line.startswith("glm130b")]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _live(out: Path, launch: Launch, point: MeetingPoint, supervision: SupervisionConfig, life: Life) -> None:
    with out.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    meeting = meet(launch, point, patience=PATIENCE)
    heartbeat = Heartbeat(meeting, supervision)
    try:
        life(heartbeat, meeting)
    except UserError as error:
        sys.exit(error.exit_status)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    started: list[Job] = []

    def start(*lives: Life, **options: Any) -> Job:
        started.append(Job(tmp_path, list(lives), **options))
        return started[-1]

    yield start
    for job in started:
        job.kill()


def busy(heartbeat: Heartbeat, meeting: Meeting) -> None:
    """Step after step, until killed."""
    for step in range(100_000):
        heartbeat.enter(f"step {step // 1000}")
        time.sleep(0.01)
        if step == 50:
            mark(meeting)


def mark(meeting: Meeting) -> None:
    own_output().with_suffix(".busy").touch()


def own_output() -> Path:
    return Path("/proc/self/fd/1").resolve()


def briefly(heartbeat: Heartbeat, meeting: Meeting) -> None:
    heartbeat.enter("step 1")
    time.sleep(0.2 * meeting.launch.rank)  # the first rank, which keeps the server, is the first to be done
    heartbeat.close()


def test_an_orderly_end_is_no_silence(jobs: Callable[..., Job]) -> None:
    ended = jobs(briefly, briefly, briefly).end()
    assert ended.statuses == {0: 0, 1: 0, 2: 0}
    assert ended.told == []


@pytest.mark.parametrize("kept_by_launcher", [False, True])
@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.full), signal.SIGSTOP])
def test_a_silent_process_ends_the_job(how: signal.Signals, kept_by_launcher: bool, jobs: Callable[..., Job]) -> None:
    job = jobs(busy, busy, busy, kept_by_launcher=kept_by_launcher)
    job.wait_until_all_are_busy()
    job.strike(how, 2)
    ended = job.end(0, 1)
    assert ended.statuses == {0: 1, 1: 1}
    (line,) = ended.told
    assert re.match(rf"glm130b: error: rank 2 \({HOST}\): no sign of life for \d s; last phase: step 0", line)
    assert ended.seconds > SILENCE - 0.5


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.full), signal.SIGSTOP])
def test_the_first_rank_is_watched_by_the_others(how: signal.Signals, jobs: Callable[..., Job]) -> None:
    job = jobs(busy, busy, busy, kept_by_launcher=True)
    job.wait_until_all_are_busy()
    job.strike(how, 0)
    ended = job.end(1, 2)
    assert ended.statuses == {1: 1, 2: 1}
    assert len(ended.told) == 1
    assert re.match(rf"glm130b: error: rank 0 \({HOST}\): no sign of life for \d s; last phase: step", ended.told[0])


@pytest.mark.parametrize(
    ("how", "told"),
    [(signal.SIGKILL, "the job's meeting point is gone"), (signal.SIGSTOP, r"no sign of life for \d s")],
)
def test_the_first_rank_takes_the_server_along(how: signal.Signals, told: str, jobs: Callable[..., Job]) -> None:
    job = jobs(busy, busy, busy)
    job.wait_until_all_are_busy()
    job.strike(how, 0)
    ended = job.end(1)  # rank 2 would say the same a while later, if no launcher had ended it
    assert ended.statuses == {1: 1}
    (line,) = ended.told
    assert re.fullmatch(rf"glm130b: error: rank 0 \({HOST}\): {told}; last phase: step 0", line)


def stuck(heartbeat: Heartbeat, meeting: Meeting) -> None:
    heartbeat.enter("writing step-00000100")
    time.sleep(100)


def test_a_process_that_does_not_move_ends_the_job(jobs: Callable[..., Job]) -> None:
    job = jobs(busy, stuck, busy, stall_seconds=4.0)
    ended = job.end()
    assert ended.statuses == {0: 1, 1: 1, 2: 1}
    (line,) = ended.told
    (seconds,) = re.findall(r"has not moved for (\d+) s; phase: writing step-00000100$", line)
    assert 4 <= int(seconds) < 30
    assert "in stuck" in (job.folder / "1").read_text(), "it shows where it hangs"


def in_a_collective(heartbeat: Heartbeat, meeting: Meeting) -> None:
    place = meeting.launch
    store = meeting.store("groups", PATIENCE)
    dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.world_size, timeout=10 * PATIENCE)
    heartbeat.enter("reduction of step 3")
    dist.barrier()
    time.sleep(0.5)
    mark(meeting)
    if place.rank == 1:
        time.sleep(100)
    with suppress(RuntimeError):
        dist.barrier()
    time.sleep(100)


def test_a_main_thread_in_a_collective_is_no_silence_and_no_hindrance(jobs: Callable[..., Job]) -> None:
    job = jobs(in_a_collective, in_a_collective, in_a_collective)
    job.wait_until_all_are_busy()
    job.strike(signal.SIGSTOP, 1)
    ended = job.end(0, 2)
    assert ended.statuses == {0: 1, 2: 1}
    assert [line.partition("): ")[0].partition(" (")[0] for line in ended.told] == ["glm130b: error: rank 1"]
    assert ended.told[0].endswith("last phase: reduction of step 3")


def failing(heartbeat: Heartbeat, meeting: Meeting) -> None:
    heartbeat.enter("backward of step 7")
    error = ZeroDivisionError("a step of no samples\nand more")
    heartbeat.failed(error)
    raise error


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_is_told_to_all(rank: int, jobs: Callable[..., Job]) -> None:
    lives = [busy, busy, busy]
    lives[rank] = failing
    ended = jobs(*lives, kept_by_launcher=True).end()
    assert set(ended.statuses.values()) == {1}
    line = "failed in backward of step 7: ZeroDivisionError: a step of no samples"
    assert ended.told == [f"glm130b: error: rank 1 ({os.uname().nodename}): {line}"] * (rank == 1)  # 0 has its trace


def mistaken(heartbeat: Heartbeat, meeting: Meeting) -> None:
    error = UserError("data.text.words.path: is damaged; prepare it again")
    heartbeat.failed(error)
    raise error


def without_files(heartbeat: Heartbeat, meeting: Meeting) -> None:
    error = FileSystemGone("checkpoints: is not there; bring the file system back")
    heartbeat.failed(error)
    raise error


def test_a_users_mistake_gives_all_its_status(jobs: Callable[..., Job]) -> None:
    ended = jobs(busy, busy, mistaken).end()
    assert set(ended.statuses.values()) == {2}
    assert ended.told == [
        f"glm130b: error on rank 2 ({os.uname().nodename}): data.text.words.path: is damaged; prepare it again"
    ]


@pytest.mark.parametrize(("life", "status"), [(mistaken, 2), (without_files, 1)])
def test_a_mistake_of_all_is_left_to_the_first_rank(jobs: Callable[..., Job], life: Life, status: int) -> None:
    ended = jobs(life, life, life, kept_by_launcher=True).end()
    assert set(ended.statuses.values()) == {status}
    assert ended.told == []  # the launcher module reports it


def until_released(heartbeat: Heartbeat, meeting: Meeting) -> None:
    mark(meeting)
    while not own_output().with_name("released").exists():
        heartbeat.enter("one more step")
        time.sleep(0.1)
    heartbeat.close()


def test_a_job_that_was_suspended_as_a_whole_goes_on(jobs: Callable[..., Job]) -> None:
    job = jobs(until_released, until_released, until_released)
    job.wait_until_all_are_busy()
    job.strike(signal.SIGSTOP, 0)
    time.sleep(2 * SILENCE / 10)  # the others wait for an answer when they are stopped
    job.strike(signal.SIGSTOP, 1, 2)
    time.sleep(2 * SILENCE)
    job.strike(signal.SIGCONT, 2, 1, 0)
    time.sleep(SILENCE)
    job.release()
    ended = job.end()
    assert ended.told == []
    assert set(ended.statuses.values()) == {0}


def spare(heartbeat: Heartbeat, meeting: Meeting) -> None:
    mark(meeting)
    heartbeat.stand_by()


def test_a_spare_waits_through_warnings_and_leaves_with_the_others(jobs: Callable[..., Job]) -> None:
    job = jobs(until_released, until_released, spare)
    job.wait_until_all_are_busy()
    job.wait_until(lambda: {signal.SIGTERM, signal.SIGUSR1} <= ignored_by(job.processes[2]))
    job.strike(signal.SIGUSR1, 2)
    job.strike(signal.SIGTERM, 2)
    job.release()
    ended = job.end()
    assert set(ended.statuses.values()) == {0}
    assert ended.told == []


def ignored_by(process: ForkServerProcess) -> set[int]:
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    return {number for number in signal.valid_signals() if int(mask, 16) >> (number - 1) & 1}


def test_it_costs_a_training_process_nothing_to_speak_of(jobs: Callable[..., Job]) -> None:
    job = jobs(idle, idle, idle)
    ended = job.end()
    assert set(ended.statuses.values()) == {0}
    seconds = [float((job.folder / f"{rank}").read_text()) for rank in range(3)]
    assert max(seconds) < 0.3, seconds


def idle(heartbeat: Heartbeat, meeting: Meeting) -> None:
    before = time.process_time()
    for _ in range(20):
        heartbeat.enter("step")
        time.sleep(0.1)  # ~13 exchanges
    print(time.process_time() - before, flush=True)
    heartbeat.close()
