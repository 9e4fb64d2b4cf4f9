"""From the rules whose rows are complete to what is done: one thing for all of them."""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from glm130b.config.interventions import Intervention, SkipRange
from glm130b.config.stability import INTERVENTIONS, Action, FaultRule, SpikeRule, StabilityConfig
from glm130b.training.schedules import Schedules
from glm130b.training.stability.memory import Memory, Row
from glm130b.training.stability.reading import Reading
from glm130b.training.stability.verdict import Rewind


@dataclass(frozen=True)
class Response:
    """What is done about a step."""

    said: str = ""
    """In words, where steps are counted from 1, as in every record; empty when nothing is done but to warn."""
    applies: bool = True
    """Whether the update is made, if it is finite."""
    interventions: tuple[Intervention, ...] = ()
    """None or one."""
    settled_step: int = 0
    """Step from which the next may follow it."""
    rewind: Rewind | None = None
    stop: bool = False

    @property
    def acts(self) -> bool:
        """Whether more is done than to warn."""
        return not self.applies or bool(self.interventions)

    @property
    def ends_rows(self) -> bool:
        """Whether the rows that led to it begin anew."""
        return self.stop or bool(self.interventions)


class Responder:
    """Turns the actions of complete rows into a response; ``stop`` comes before anything else."""

    def __init__(self, config: StabilityConfig, schedules: Schedules) -> None:
        self._config = config
        self._rules = config.rules
        self._schedules = schedules

    def rule(self, name: str) -> SpikeRule | FaultRule:
        """The rule of that key."""
        return self._rules[name]

    def respond(self, completed: Mapping[str, Row], reading: Reading, memory: Memory, *, reason: str) -> Response:
        """All actions of the ``completed`` rules, each once; ``reason`` goes into the record."""
        actions = {action for name in completed for action in self.rule(name).actions}
        applies, rewinds = "skip_update" not in actions, "rewind" in actions
        count, most = len(memory.interventions) + 1, self._config.most_interventions
        if "stop" in actions:
            return _stop("the run stops")
        if not actions & INTERVENTIONS:
            return Response("" if applies else "the update is skipped", applies)
        if not rewinds and reading.step < memory.settled_step:
            said = f"the last intervention has until step {memory.settled_step} to take effect"
            return Response(said if applies else f"{said}, the update is skipped", applies)
        if count > most:
            return _stop(f"this would be intervention {count}, {most} are the most: the run stops")
        if not rewinds:
            return self._change(actions, reading, applies=applies, reason=reason)
        if self._schedules.samples_at(reading.step) != reading.samples:
            return _stop("the batch sizes have changed on the way, so steps cannot be passed over: the run stops")
        first = min(row.first_step for name, row in completed.items() if "rewind" in self.rule(name).actions)
        return self._back(actions, first, reading.step, reason=reason)

    def _change(self, actions: Set[Action], reading: Reading, *, applies: bool, reason: str) -> Response:
        """From the next step on."""
        begin = reading.samples + self._schedules.batch_size(reading.samples)
        intervention = self._intervention(actions, begin, skip=None, reason=reason)
        settled = reading.step + 1 + self._config.pause_steps
        return Response(_in_words(intervention), applies, (intervention,), settled)

    def _back(self, actions: Set[Action], first: int, last: int, *, reason: str) -> Response:
        """To before ``first``, and past the steps around ``first ... last``: what else is changed holds behind them, so
        that those before them are as they were."""
        config = self._config.rewind
        begin = max(0, first - config.skip_before_steps)
        # The run's last step is never passed over, since nothing would be saved after it.
        until = min(last + 1 + config.skip_after_steps, self._schedules.num_steps - 1)
        skip = SkipRange(from_step=begin, steps=until - begin) if begin < until else None
        intervention = self._intervention(actions, self._schedules.samples_at(until), skip=skip, reason=reason)
        rewind = Rewind(before_step=max(0, first - config.margin_steps))
        said = f"back to step {rewind.before_step} or before, {_in_words(intervention)}"
        return Response(said, False, (intervention,), until + self._config.pause_steps, rewind)

    def _intervention(
        self, actions: Set[Action], from_samples: int, *, skip: SkipRange | None, reason: str
    ) -> Intervention:
        config, batch_size = self._config, self._schedules.batch_size(from_samples)
        return Intervention(
            from_samples=from_samples,
            alpha_factor=config.alpha_factor if "shrink_alpha" in actions else 1.0,
            learning_rate_factor=config.learning_rate_factor if "lower_learning_rate" in actions else 1.0,
            rewarm_samples=config.rewarm_steps * batch_size if "rewarm" in actions else 0,
            skip=skip,
            reason=reason,
        )


def _stop(said: str) -> Response:
    return Response(said, applies=False, stop=True)


def _in_words(intervention: Intervention) -> str:
    changes = []
    if skip := intervention.skip:
        changes.append(f"past steps {skip.from_step + 1} .. {skip.until_step}")
    if intervention.alpha_factor != 1:
        changes.append(f"alpha x {intervention.alpha_factor:g}")
    if intervention.learning_rate_factor != 1:
        changes.append(f"learning rate x {intervention.learning_rate_factor:g}")
    if intervention.rewarm_samples:
        changes.append(f"learning rate from 0 again over {intervention.rewarm_samples} samples")
    return f"{', '.join(changes)}, from sample {intervention.from_samples} on"
