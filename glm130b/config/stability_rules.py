"""What the stability guard, the user's interventions and the ranges passed over must agree on."""

from collections.abc import Iterator
from itertools import pairwise

from glm130b.config.sections import RunConfig
from glm130b.config.stability import INTERVENTIONS, SpikeRule


def stability_problems(config: RunConfig) -> Iterator[str]:
    """What keeps the guard from doing what the config says, or a range of steps from being told apart."""
    yield from _skips(config)
    yield from _interventions(config)
    yield from _window(config)
    yield from _actions(config)
    yield from _rewind(config)


def _skips(config: RunConfig) -> Iterator[str]:
    skips = config.data.skip_steps
    for before, after in pairwise(skips):
        if after.from_step <= before.until_step:
            yield (
                f"data.skip_steps: the range from step {after.from_step} does not lie behind the one from step "
                f"{before.from_step}; write the ranges in rising order, and join those that touch"
            )


def _interventions(config: RunConfig) -> Iterator[str]:
    for before, after in pairwise(config.interventions):
        if after.from_samples < before.from_samples:
            yield (
                f"interventions: the one from sample {after.from_samples} follows that from sample "
                f"{before.from_samples}; write them in rising order"
            )
    for index, intervention in enumerate(config.interventions):
        if intervention.skip is not None:
            yield f"interventions.{index}.skip: is the stability guard's; write the range under data.skip_steps"


def _window(config: RunConfig) -> Iterator[str]:
    stability = config.stability
    if stability.quiet_steps > stability.window_steps:
        yield (
            f"stability.quiet_steps: {stability.quiet_steps} never stand in a window of window_steps "
            f"{stability.window_steps}; write at most {stability.window_steps}"
        )
    for key, rule in config.stability.rules.items():
        if isinstance(rule, SpikeRule) and rule.in_a_row > stability.quiet_steps:
            yield (
                f"stability.{key}.in_a_row: {rule.in_a_row} spikes are more than quiet_steps {stability.quiet_steps}, "
                f"which are a new level; write at most {stability.quiet_steps}"
            )


def _actions(config: RunConfig) -> Iterator[str]:
    shrink = config.model.embedding_gradient_shrink
    for key, rule in config.stability.rules.items():
        if len(set(rule.actions)) < len(rule.actions):
            yield f"stability.{key}.actions: {', '.join(rule.actions)} has one twice; name each once"
        if "stop" in rule.actions and (vain := sorted(INTERVENTIONS.intersection(rule.actions))):
            yield f"stability.{key}.actions: a run that stops does not {' or '.join(vain)}; leave out stop, or the rest"
        if "shrink_alpha" in rule.actions and not (shrink.input_side or shrink.logit_side):
            yield (
                f"stability.{key}.actions: shrink_alpha changes nothing without a side to shrink; set "
                "model.embedding_gradient_shrink.input_side or logit_side"
            )


def _rewind(config: RunConfig) -> Iterator[str]:
    rewind, checkpoint = config.stability.rewind, config.checkpoint
    rewinding = [(key, rule) for key, rule in config.stability.rules.items() if "rewind" in rule.actions]
    if rewinding and rewind.skip_before_steps > rewind.margin_steps:
        yield (
            f"stability.rewind.skip_before_steps: {rewind.skip_before_steps} reaches behind a checkpoint that is only "
            f"margin_steps {rewind.margin_steps} older; write at most {rewind.margin_steps}"
        )
    if checkpoint.keep_last is None:
        return
    for key, rule in rewinding:
        # The newest may be of the very step that completes the row.
        back = rule.in_a_row - 1 + rewind.margin_steps
        if back > (checkpoint.keep_last - 1) * checkpoint.every_steps:
            needed = 1 - (-back // checkpoint.every_steps)
            yield (
                f"checkpoint.keep_last: {checkpoint.keep_last} checkpoints, {checkpoint.every_steps} steps apart, need "
                f"not reach the {back} steps back that stability.{key} may rewind; write {needed} or more, or null"
            )
