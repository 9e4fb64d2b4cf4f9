"""The door to Weights & Biases."""

import json
import math
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import wandb

from glm130b.config.sections import RunConfig
from glm130b.training.journal import Event
from glm130b.training.metrics import Record

_LAYERS = "gradient_norm/layer."
_FINISH_SECONDS = 15.0
"""For what is not uploaded yet when the run ends; the rest stays on disk, for ``wandb sync``."""
_INIT_SECONDS = 60.0
_ALERTS = {
    "resume": None,
    "checkpoint saved": None,
    "checkpoints kept": None,
    "slow rank recovered": None,
    "ended": "INFO",
    "checkpoint failed": "ERROR",
    "rewind failed": "ERROR",
    "invariant broken": "ERROR",
    "damaged checkpoint": "ERROR",
    "file system gone": "ERROR",
    "file system full or gone": "ERROR",
}
"""How loud the alert of an event is; None gives none. Any other event, such as a spike, warns."""


class WeightsAndBiases:
    """One wandb run a training run: the same run id after every restart, so that the curves continue.

    ``train/<name>`` and ``validation/<name>`` are the records' values; ``events/<name>`` counts the events of a name.
    Offline it writes ``<folder>/wandb/offline-run-*``, one folder a start, and needs neither account nor network. What
    a rewind has made void stays: wandb takes nothing back, so the curves show both passes over those samples.

    Making it raises what wandb raises (no account, no network), and can be tried again.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        *,
        mode: Literal["online", "offline"],
        facts: Mapping[str, Any],
        events_so_far: Mapping[str, int],
    ) -> None:
        """``folder`` is the run's; ``facts`` are plain data that the config does not hold: versions, layout, hosts.
        ``events_so_far`` counts the events of earlier starts by name."""
        logging = config.logging
        wandb.setup(wandb.Settings(silent=True))
        # Asked first: an init that reaches nobody holds on for long, also when the process ends.
        if mode == "online" and not wandb.login(prompt=False):
            raise OSError("no account is known; run `wandb login`, or set logging.wandb=offline")
        self._alerts, self._media = logging.wandb_alerts, logging.wandb_media
        self._place: dict[str, int] = {}
        """``samples`` of the newest record."""
        self._events: list[dict[str, int]] = []
        """Told before the first record, which says where on the axis they stand. Without one they stay in the summary
        alone, and the next start counts them."""
        self._counts = Counter(events_so_far)
        self._run = wandb.init(
            project=logging.project,
            entity=logging.entity,
            name=config.name,
            id=_run_id(folder),
            resume="allow",  # offline too: `wandb sync` then appends one folder's history to the other's
            mode=mode,
            dir=str(folder),
            config={**json.loads(config.model_dump_json()), "facts": dict(facts)},
            settings=_settings(folder / "stop"),
        )
        self._run.define_metric("samples", hidden=True)
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="samples")

    def begin(self, step: int) -> None:
        """wandb takes nothing back."""

    def write(self, record: Record) -> None:
        self._place = {"samples": record.samples}
        self._log_events()
        values: dict[str, Any] = {f"{record.kind}/{name}": value for name, value in record.values.items()}
        values |= {f"{record.kind}/{name}": text for name, text in record.labels.items()}
        if self._media:
            values |= _histogram(record)
        self._run.log(values | {"step": record.step} | self._place)

    def tell(self, event: Event) -> None:
        self._counts[event.name] += 1
        self._events.append({f"events/{event.name}": self._counts[event.name], "step": event.step})
        if self._place:
            self._log_events()
        self._run.summary[f"last/{event.name}"] = str(event)
        level = _ALERTS.get(event.name, "WARN")
        if self._alerts and level is not None:
            self._run.alert(title=f"{self._run.name}: {event.name}", text=str(event), level=level)

    def close(self) -> None:
        self._run.finish()

    def _log_events(self) -> None:
        for event in self._events:
            self._run.log(event | self._place)
        self._events = []


def _settings(stop_file: Path) -> wandb.Settings:
    """Nothing of this machine is sent but what the run measures, and nobody is asked or waited for without end."""
    return wandb.Settings(
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_save_requirements=False,
        init_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
        stop_fn=stop_file.touch,  # its page's Stop saves and ends the run, where wandb would interrupt it
    )


def _run_id(folder: Path) -> str:
    """The id kept in the run's folder, made at the first start; a kill or a full disk leaves it whole or absent."""
    file = folder / "wandb_run_id"
    known = file.read_text(encoding="ascii").strip() if file.exists() else ""
    if not known:
        known = secrets.token_hex(4)
        beside = folder / ".wandb_run_id"
        beside.write_text(known, encoding="ascii")
        beside.replace(file)
    return known


def _histogram(record: Record) -> dict[str, wandb.Histogram]:
    """The layers' gradient norms as bars, one a layer, in thousandths of the largest: over the steps a map of heat."""
    found = ((name.removeprefix(_LAYERS), value) for name, value in record.values.items() if name.startswith(_LAYERS))
    norms = [norm for _, norm in sorted((int(layer), norm) for layer, norm in found)]
    if not norms or not all(map(math.isfinite, norms)):
        return {}
    bars = [round(1000 * norm / (max(norms) or 1)) for norm in norms]
    return {f"{record.kind}/gradient_norm/layers": wandb.Histogram(np_histogram=(bars, list(range(len(bars) + 1))))}
