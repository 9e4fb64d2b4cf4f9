"""The guard: a pure function from the past and one reading to a verdict, and the past that follows."""

from collections.abc import Iterator, Mapping

from glm130b.config.stability import INTERVENTIONS, StabilityConfig
from glm130b.training.schedules import Schedules
from glm130b.training.stability.memory import Memory, Row
from glm130b.training.stability.reading import SIGNALS, Reading
from glm130b.training.stability.response import Responder, Response
from glm130b.training.stability.trial import Trial, try_faults, try_spike
from glm130b.training.stability.verdict import Finding, Verdict
from glm130b.training.stability.window import Window


class Guard:
    """Judges steps. All its state is ``memory``, so a run resumed from a checkpoint judges as it would have."""

    def __init__(self, config: StabilityConfig, memory: Memory | None = None, *, schedules: Schedules) -> None:
        self.memory = memory or Memory()
        self._config = config
        self._responder = Responder(config, schedules)
        self._is_fp16 = schedules.config.precision.dtype == "fp16"

    def judge(self, reading: Reading) -> Verdict:
        """What follows from a step; changes nothing."""
        trials = self._trials(reading)
        rows = self._rows(trials, reading.step)
        completed = {
            name: row
            for name, row in rows.items()
            if trials[name].broken and row.length >= self._responder.rule(name).in_a_row
        }
        reason = "; ".join(_seen(trials[name], row) for name, row in completed.items())
        response = self._responder.respond(completed, reading, self.memory, reason=reason)
        windows = {name: self._window_after(name, trials[name], reading.value(name)) for name in SIGNALS}
        new_levels = {name for name in SIGNALS if trials[name].broken and windows[name].values != self._values(name)}
        ended = set(completed if response.ends_rows else ()) | new_levels
        return Verdict(
            findings=tuple(self._findings(trials, rows, completed, response=response, new_levels=new_levels)),
            permits_update=response.applies and reading.is_finite,
            interventions=response.interventions,
            rewind=response.rewind,
            stop=response.stop,
            memory=Memory(
                windows=windows,
                rows={name: row for name, row in rows.items() if name not in ended},
                interventions=(*self.memory.interventions, *response.interventions),
                settled_step=max(self.memory.settled_step, response.settled_step),
            ),
        )

    def remember(self, verdict: Verdict) -> None:
        """Go on with what the verdict leaves behind."""
        self.memory = verdict.memory

    def _trials(self, reading: Reading) -> dict[str, Trial]:
        spikes = {
            name: try_spike(
                name,
                reading.value(name),
                rule=getattr(self._config, name),
                window=self._window(name),
                quiet_steps=self._config.quiet_steps,
            )
            for name in SIGNALS
        }
        return spikes | try_faults(reading, is_fp16=self._is_fp16)

    def _rows(self, trials: Mapping[str, Trial], step: int) -> dict[str, Row]:
        """The rows that go on or begin with this reading, by rule."""
        rows = {}
        for name, trial in trials.items():
            row = self.memory.rows.get(name)
            if trial.broken:
                rows[name] = row.longer() if row else Row(first_step=step)
            elif trial.broken is None and row:
                rows[name] = row
        return rows

    def _window(self, signal: str) -> Window:
        return self.memory.windows.get(signal, Window())

    def _values(self, signal: str) -> tuple[float, ...]:
        return self._window(signal).values

    def _window_after(self, signal: str, trial: Trial, value: float) -> Window:
        window = self._window(signal)
        if trial.broken is None:
            return window
        if not trial.broken:
            return window.with_value(value, window_steps=self._config.window_steps)
        # A rule that changes or stops the run does so again and again, until the signal or the run ends: to take a
        # diverged loss for its new level would be to look away.
        if INTERVENTIONS.union({"stop"}).intersection(self._responder.rule(signal).actions):
            return window
        return window.with_spike(value, level_steps=self._config.quiet_steps)

    def _findings(
        self,
        trials: Mapping[str, Trial],
        rows: Mapping[str, Row],
        completed: Mapping[str, Row],
        *,
        response: Response,
        new_levels: set[str],
    ) -> Iterator[Finding]:
        for name, trial in trials.items():
            # An overflow now and then is how fp16's loss scale finds its place.
            if not trial.broken or (name == "overflow" and name not in completed):
                continue
            message = _seen(trial, row := rows[name])
            acts = name in completed and bool(set(self._responder.rule(name).actions) - {"warn"})
            if acts and response.said:
                message += f": {response.said}"
            if name in new_levels:
                message += ": from here on this is the level that others are judged by"
            details = {**trial.details, "row": row.length, "first_step": row.first_step + 1}
            yield Finding(name, message, {**details, "acted": acts and response.acts})


def _seen(trial: Trial, row: Row) -> str:
    """In words, where steps are counted from 1, as in every record."""
    return f"{trial.seen}, {row.length} in a row since step {row.first_step + 1}"
