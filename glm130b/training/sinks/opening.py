"""Which sinks a run has."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

from glm130b.config.sections import RunConfig
from glm130b.training.journal import now
from glm130b.training.sinks.background import Background, Patience, Substitute
from glm130b.training.sinks.console import Console
from glm130b.training.sinks.json_lines import JsonLines, count_events
from glm130b.training.sinks.recorder import Recorder, Sink

_FILES = Patience(retry_seconds=1.0, event_seconds=2.0, close_seconds=10.0)
_TENSORBOARD = Patience(retry_seconds=10.0, event_seconds=0.0, close_seconds=10.0)
_WANDB = Patience(retry_seconds=60.0, event_seconds=0.0, close_seconds=20.0)


def open_recorder(
    config: RunConfig, folder: Path, *, facts: Mapping[str, Any], stream: TextIO | None = None
) -> Recorder:
    """The sinks of the first rank; on another there is nothing to record, and ``Recorder()`` does that.

    ``folder`` is the run's, ``facts`` what Weights & Biases is told beside the config. Only the console writes on the
    caller's thread.
    """
    smask = config.objective.smask_share
    console = Console(
        stream or sys.stdout, total_samples=config.train_samples, has_smask=max(smask.start, smask.end) > 0
    )
    files = Background("metrics.jsonl, events.jsonl", lambda: JsonLines(folder), patience=_FILES, tell=console.complain)
    sinks: list[Sink] = [console, files]
    if config.logging.tensorboard:
        sinks.append(
            Background("TensorBoard", lambda: _tensorboard(folder), patience=_TENSORBOARD, tell=console.complain)
        )
    if config.logging.wandb != "disabled":
        sinks.append(_weights_and_biases(config, folder, config.logging.wandb, facts=facts, tell=console.complain))
    return Recorder(sinks)


def _tensorboard(folder: Path) -> Sink:
    from glm130b.training.sinks.tensorboard import TensorBoard  # not installed everywhere

    return TensorBoard(folder)


def _weights_and_biases(
    config: RunConfig,
    folder: Path,
    mode: Literal["online", "offline"],
    *,
    facts: Mapping[str, Any],
    tell: Callable[[str], None],
) -> Background:
    started = now()

    def make(mode: Literal["online", "offline"]) -> Sink:
        from glm130b.training.sinks.weights_and_biases import WeightsAndBiases  # takes a second to import

        events_so_far = count_events(folder, before=started)
        return WeightsAndBiases(config, folder, mode=mode, facts=facts, events_so_far=events_so_far)

    notice = f"goes on offline; `wandb sync {folder}/wandb/offline-run-*` uploads that"
    return Background(
        "Weights & Biases",
        partial(make, mode),
        substitute=Substitute(partial(make, "offline"), notice),
        patience=_WANDB,
        tell=tell,
    )
