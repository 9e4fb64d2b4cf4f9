"""Programs that answer, and those that do not."""

import os
import signal
import sys
from pathlib import Path

import pytest

from glm130b.preflight.program import answer


def test_a_program_that_answers() -> None:
    done = answer([sys.executable, "-c", "import sys; print('yes'); sys.exit(3)"], seconds=60)
    assert (done.stdout, done.returncode) == ("yes\n", 3)


@pytest.mark.timeout(20)
def test_one_that_is_stuck_is_not_waited_for(tmp_path: Path) -> None:
    """Its child survives it and holds its output open, as a driver would hold the program itself."""
    script = f"sleep 60 & echo $! >{tmp_path / 'child'}; sleep 60"
    with pytest.raises(TimeoutError, match="sh gives no answer after"):
        answer(["sh", "-c", script], seconds=3)  # in which a busy machine starts the child
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
