"""A file system that is gone for a while is waited for; it is no damage."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_GONE = frozenset(
    {
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EREMOTEIO,
    }
)
_LONGEST_PAUSE_SECONDS = 30.0


def is_gone(error: BaseException) -> bool:
    """Whether an error is of a file system that may come back: a dead server, a lost mount, a broken connection."""
    return isinstance(error, OSError) and error.errno in _GONE


def patiently(
    work: Callable[[], Result],
    *,
    seconds: float,
    may_pass: Callable[[Exception], bool],
    tell: Callable[[str], None],
) -> Result:
    """What ``work`` returns, tried again after pauses of 1, 2, 4 ... 30 s, ``seconds`` in all, if its errors may pass.

    The number of tries depends on nothing but ``seconds``: where ``work`` is collective and raises alike on all ranks,
    they stay together.
    """
    waited, pause = 0.0, 1.0
    while True:
        try:
            return work()
        except Exception as error:
            if waited >= seconds or not may_pass(error):
                raise
            pause = min(pause, seconds - waited, _LONGEST_PAUSE_SECONDS)
            tell(f"{error}; the next try is in {pause:.0f} s, for {seconds - waited:.0f} s in all")
        time.sleep(pause)
        waited += pause
        pause *= 2
