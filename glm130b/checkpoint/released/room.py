"""Whether what is to be written has a place, asked before hours of reading."""

import os
import shutil
from pathlib import Path

from glm130b.config.errors import UserError

_SLACK_BYTES = 16 * 2**20
"""For descriptions, headers and what the file system keeps for itself; with it a hundredth of the data."""


def check_room(folder: Path, data_bytes: int) -> None:
    """Raise UserError unless this user can write ``data_bytes`` into ``folder``, which need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "this user may not write there" if there.is_dir() else "it is a file"
        raise UserError(f"{folder}: cannot be made in {there} ({reason}); name another folder")
    needed = data_bytes + data_bytes // 100 + _SLACK_BYTES
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{folder}: needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; free some, or name another folder"
        )
