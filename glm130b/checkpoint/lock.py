"""One run on one folder: the lock that its first rank holds for as long as it lives."""

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from glm130b.config.errors import UserError

_POLL_SECONDS = 0.1
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class RunLock:
    """``<folder>/lock``, locked by this process. The kernel takes the lock back however the process ends.

    The file says who holds it, and stays: two processes would lock different files if one of them removed it.
    """

    def __init__(self, folder: Path) -> None:
        """Opens the file only; use ``take``."""
        self.path = folder / "lock"
        self.warning: str | None = None
        """What the user should know: this file system cannot lock, so nobody checks for a second run."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}); name a folder for the run to write in"
            ) from None
        # A lock lasts as long as anybody has the file open, and a forked child may outlive this process.
        os.register_at_fork(after_in_child=self._file.close)

    @classmethod
    def take(cls, folder: Path, *, patience_seconds: float = 5.0) -> "RunLock":
        """Lock a run's folder, which is made if it is missing.

        A job that was ended and started again may meet its own past, so who finds the folder locked waits a little.
        Raises UserError naming host, process and start of the run that has it after ``patience_seconds``.
        """
        lock = cls(folder)
        last_try = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(lock._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= last_try:
                    holder = lock._holder()
                    lock.release()
                    raise UserError(
                        f"{folder}: {holder} is at work in it; wait for its end or end it, or give this run another "
                        "name"
                    ) from None
                time.sleep(_POLL_SECONDS)
            except OSError as error:
                lock.release()
                if error.errno not in _NO_LOCKS:
                    raise
                lock.warning = (
                    f"{lock.path}: this file system has no locks ({error.strerror}); see to it that no second run "
                    "writes into the folder"
                )
                return lock
        lock._sign()
        return lock

    def release(self) -> None:
        """Let others have the folder; harmless when done twice."""
        self._file.close()

    def _sign(self) -> None:
        """Say who holds the lock. It holds without that, too, on a disk that is full."""
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        with suppress(OSError):
            self._file.truncate(0)
            self._file.write(json.dumps(holder).encode())

    def _holder(self) -> str:
        """Who holds the lock, as far as the file tells."""
        try:
            holder = json.loads(self._file.read())
            return f"process {holder['pid']} on {holder['host']}, started {holder['start']},"
        except (OSError, ValueError, KeyError, TypeError):  # it has just been taken, or could not be signed
            return "another process"
