"""How the processes of a job find each other: through a small key-value server whose address all know.

The agents of torchrun keep one server over all restarts of their workers, and do not always agree on how often they
have restarted. What an earlier attempt left there must mean nothing to this one. So every process announces a number of
its own, and the first rank answers under that number with the name of the attempt, under which all else is kept.
"""

import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore

from glm130b.config.wording import rank_spans
from glm130b.environment import Launch, MeetingPoint

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Meeting:
    """A job whose processes have all come."""

    launch: Launch
    point: MeetingPoint
    attempt: str
    """Name of this attempt, the same on every process, different in every restart."""
    server: TCPStore
    """Kept for as long as the process lives: on the first rank it may be the server itself."""

    def store(self, topic: str, timeout: timedelta) -> Store:
        """This attempt's keys of one topic, over a connection of their own: who waits there keeps nobody else waiting.

        ``timeout`` is for keys that nobody has set yet.
        """
        return PrefixStore(f"{self.attempt}/{topic}", _client(self.point, timeout))


def meet(launch: Launch, point: MeetingPoint, *, patience: timedelta) -> Meeting:
    """Wait until every process of the job is there. Each calls this once.

    Raises ``TimeoutError`` after ``patience``: on the first rank it names the ranks that have not come, on the others
    it says that the first rank has not answered.
    """
    keeps_server = launch.rank == 0 and not point.kept_by_launcher
    try:
        server = TCPStore(point.host, point.port, is_master=True, wait_for_workers=False) if keeps_server else None
        hall = server or _client(point, patience)
        attempt = _welcome(hall, launch.world_size, patience) if launch.rank == 0 else _arrive(hall, launch.rank)
    except TimeoutError:
        raise
    except RuntimeError as error:  # what torch raises when nobody answers in time
        raise TimeoutError(
            f"rank {launch.rank}: no answer from rank 0 at {point.host}:{point.port} within "
            f"{patience.total_seconds():.0f} s ({str(error).partition(chr(10))[0]}); if rank 0 names missing ranks, "
            "look there"
        ) from None
    return Meeting(launch=launch, point=point, attempt=attempt, server=hall)


def _arrive(hall: Store, rank: int) -> str:
    number = secrets.token_hex(8)
    hall.set(f"arrival/{rank}", number)
    attempt = hall.get(f"welcome/{number}").decode()  # waits for it
    hall.set(f"{attempt}/came/{rank}", "")
    return attempt


def _welcome(hall: Store, world_size: int, patience: timedelta) -> str:
    """Answer every arrival until all ranks have confirmed; an earlier attempt's number is answered in vain."""
    attempt = secrets.token_hex(8)
    missing, answered = set(range(1, world_size)), set[str]()
    deadline = time.monotonic() + patience.total_seconds()
    while missing:
        for rank in sorted(missing):
            if hall.check([f"{attempt}/came/{rank}"]):
                missing.remove(rank)
            elif hall.check([f"arrival/{rank}"]):
                number = hall.get(f"arrival/{rank}").decode()
                if number not in answered:
                    hall.set(f"welcome/{number}", attempt)
                    answered.add(number)
        if missing and time.monotonic() > deadline:
            raise TimeoutError(
                f"{rank_spans(sorted(missing))} of {world_size} not there after {patience.total_seconds():.0f} s; see "
                "on their machines why they did not start"
            )
        time.sleep(_PAUSE_SECONDS if missing else 0)
    return attempt


def _client(point: MeetingPoint, timeout: timedelta) -> TCPStore:
    return TCPStore(point.host, point.port, is_master=False, wait_for_workers=False, timeout=timeout)
