"""A program that is asked, and given up where the machine does not even let it be killed."""

import subprocess
from collections.abc import Sequence
from contextlib import suppress

_DEATH_SECONDS = 5.0


def answer(words: Sequence[str], *, seconds: float) -> subprocess.CompletedProcess[str]:
    """What the program prints, and its status. Raises ``TimeoutError`` after ``seconds`` and a little more, OSError
    when there is no such program.

    ``subprocess.run`` would wait for the one that it has killed: for ever where that waits for a driver or a file
    system, or has left a child behind that holds its output.
    """
    program = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        output, errors = program.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        program.kill()
        with suppress(subprocess.TimeoutExpired):
            program.wait(_DEATH_SECONDS)
        raise TimeoutError(f"{words[0]} gives no answer after {seconds:g} s") from None
    return subprocess.CompletedProcess(words, program.returncode, output, errors)
