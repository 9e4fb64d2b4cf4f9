"""The guard at work: asked before every update, told of in the journal, heard by who runs the loop."""

from glm130b.training.journal import Event, Journal
from glm130b.training.stability.guard import Guard
from glm130b.training.stability.reading import Reading
from glm130b.training.stability.verdict import Verdict


class Watch:
    """Holds the guard and the last step's verdict."""

    def __init__(self, guard: Guard, journal: Journal) -> None:
        self.guard = guard
        self.verdict: Verdict | None = None
        """Of the step before; None before the first."""
        self._journal = journal

    def permits(self, reading: Reading) -> bool:
        """Judge a step and remember the verdict; whether its update may be made."""
        self.verdict = self.guard.judge(reading)
        self.guard.remember(self.verdict)
        for finding in self.verdict.findings:
            name = finding.rule.replace("_", " ")
            self._journal.tell(Event(name, reading.step + 1, finding.message, finding.details))
        return self.verdict.permits_update

    def wants_a_change(self) -> bool:
        """Whether the run cannot simply go on: its schedules change, it goes back, or it ends."""
        verdict = self.verdict
        return verdict is not None and (verdict.stop or verdict.rewind is not None or bool(verdict.interventions))
