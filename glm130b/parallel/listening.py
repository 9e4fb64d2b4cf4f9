"""When a process counts as lost: what the processes tell of themselves, judged by the listener's own clock."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple


class Sign(NamedTuple):
    """A process's sign of life."""

    number: int
    """Counted from 1, so that a new sign differs from the one before."""
    host: str
    phase: str
    """What its main thread is at."""
    seconds: float
    """For so long, by its own clock."""
    ended: bool = False
    """It has finished in good order; no further sign follows."""

    def to_text(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_text(cls, text: str) -> "Sign":
        return cls(*json.loads(text))


@dataclass(frozen=True)
class JobEnd:
    """Why the job ends, agreed by all who can still hear."""

    rank: int
    """Who brought it about."""
    message: str
    status: int = 1
    """Exit status of the processes that end because of it."""
    is_told: bool = False
    """Whether it is a user's matter, which all processes meet together and the first one tells."""
    teller: int | None = None
    """Who found it out: of many who did in one moment, and in the same words, one is heard."""

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "JobEnd":
        return cls(**json.loads(text))


class Clock:
    """Seconds that this process has been awake for.

    A process that was stopped (a suspended job, a frozen container, a machine without a free core) has heard nothing
    meanwhile, and must not take that for the silence of others. So a tick counts for a few times its due at most.
    """

    def __init__(self, tick_seconds: float) -> None:
        self.now = 0.0
        self._most = 3 * tick_seconds
        self._last: float | None = None

    def tick(self, monotonic: float) -> float:
        """Move on to ``monotonic``, a reading of ``time.monotonic()``."""
        if self._last is not None:
            self.now += min(monotonic - self._last, self._most)
        self._last = monotonic
        return self.now


class Listener:
    """Listens to some processes. Clocks of different machines are never compared: what counts is for how long this
    process has heard nothing new."""

    def __init__(self, *, silence_seconds: float, stall_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self._stall_seconds = stall_seconds
        self._heard: dict[int, tuple[Sign, float]] = {}

    def hear(self, signs: Mapping[int, Sign], now: float) -> JobEnd | None:
        """Take in the processes' newest signs at ``now`` by the own clock; who is lost, if one is.

        Of several the one that has been silent, or in its phase, for longest: the others wait for it.
        """
        for rank, sign in signs.items():
            if rank not in self._heard or self._heard[rank][0] != sign:
                self._heard[rank] = (sign, now)
        living = {rank: (sign, now - since) for rank, (sign, since) in self._heard.items() if not sign.ended}
        if not living:
            return None
        rank, (sign, silent) = max(living.items(), key=lambda item: item[1][1])
        if silent > self._silence_seconds:
            return JobEnd(
                rank, f"rank {rank} ({sign.host}): no sign of life for {silent:.0f} s; last phase: {sign.phase}"
            )
        rank, (sign, _) = max(living.items(), key=lambda item: item[1][0].seconds)
        if sign.seconds > self._stall_seconds:
            return JobEnd(
                rank, f"rank {rank} ({sign.host}): has not moved for {sign.seconds:.0f} s; phase: {sign.phase}"
            )
        return None
