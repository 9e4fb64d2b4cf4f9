"""How often something is tried again, and what for."""

import errno

import pytest

from glm130b.config import patience
from glm130b.config.patience import is_gone, patiently


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (OSError(errno.ESTALE, ""), True),
        (OSError(errno.EIO, ""), True),
        (OSError(errno.ENOSPC, ""), False),
        (FileNotFoundError(errno.ENOENT, ""), False),
        (ValueError(), False),
    ],
)
def test_what_may_come_back(error: Exception, gone: bool) -> None:
    assert is_gone(error) == gone


@pytest.mark.parametrize(
    ("seconds", "pauses"),
    [(0.0, []), (0.5, [0.5]), (7.0, [1, 2, 4]), (100.0, [1, 2, 4, 8, 16, 30, 30, 9])],
)
def test_pauses_grow_and_end(monkeypatch: pytest.MonkeyPatch, seconds: float, pauses: list[float]) -> None:
    slept: list[float] = []
    told: list[str] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)

    def work() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        patiently(work, seconds=seconds, may_pass=lambda _: True, tell=told.append)
    assert slept == pauses
    assert len(told) == len(pauses)
    if pauses:
        assert told[0] == f"away; the next try is in {pauses[0]:.0f} s, for {seconds:.0f} s in all"


def test_success_ends_the_wait_and_other_errors_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience.time, "sleep", lambda _: None)
    answers = iter([OSError(errno.EIO, ""), OSError(errno.EIO, ""), "back"])

    def work() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(work, seconds=60, may_pass=is_gone, tell=lambda _: None) == "back"
    answers = iter([OSError(errno.EIO, ""), ValueError("damage"), "back"])
    with pytest.raises(ValueError, match="damage"):
        patiently(work, seconds=60, may_pass=is_gone, tell=lambda _: None)
