"""What a check found: one line for a person, one object for a machine."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "skipped", "warning", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the page."""

    check: str
    """What was looked at, in a word or two."""
    state: State
    """``warning``: a run works, but perhaps not well. ``FAIL``: it would not start here, or end, or hold others up."""
    value: str
    """What was found, with its unit; of a skipped check the reason."""
    mend: str = ""
    """What to do about a warning or a failure."""


def ok(check: str, value: str) -> Finding:
    return Finding(check, "ok", value)


def skipped(check: str, reason: str) -> Finding:
    return Finding(check, "skipped", reason)


def warning(check: str, value: str, mend: str) -> Finding:
    return Finding(check, "warning", value, mend)


def failed(check: str, value: str, mend: str) -> Finding:
    return Finding(check, "FAIL", value, mend)


def broken(check: str, problem: str) -> Finding:
    """A problem as a ``UserError`` words it: what is wrong; the mend."""
    value, _, mend = problem.partition("; ")
    return failed(check, value, mend)


def at_least(check: str, value: str, amount: float, *, wanted: float, needed: float, mend: str) -> Finding:
    """A warning for an ``amount`` below what is ``wanted``, a failure for one below what is ``needed``."""
    if amount >= wanted:
        return ok(check, value)
    return warning(check, value, mend) if amount >= needed else failed(check, value, mend)
