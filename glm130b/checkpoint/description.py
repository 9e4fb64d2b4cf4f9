"""``run.json``: what a checkpoint says of the run that saved it, and whether this run may go on from there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules

_FREE_IN_MODEL = ("model.attention_dropout", "model.hidden_dropout", "model.embedding_gradient_shrink.")
_FIXED = ("seed", "data.sequence_length")


@dataclass(frozen=True)
class Description:
    """Everything of a checkpoint but its tensors."""

    progress: Progress
    counters: dict[str, Any]
    """Optimizer step count and fp16 loss scaler."""
    config: dict[str, Any]
    """The resolved config as plain data."""
    tokenizer: str
    """SHA-256 of the tokenizer's file."""
    eras: tuple[Era, ...] = ()
    """How the run's data was mixed so far; empty for imported weights, which have seen none of it."""
    optimizer_state: bool = True
    """Whether the optimizer's moments are in it; imported weights have none, and the run that goes on from them starts
    with moments of zero."""

    def to_json(self) -> str:
        packages = ("glm130b", "torch", "megatron-core", "deepspeed")
        data = asdict(self) | {
            "eras": [era.model_dump(mode="json") for era in self.eras],
            "versions": {package: version(package) for package in packages},
        }
        return json.dumps(data, indent=1)

    @classmethod
    def read(cls, checkpoint: Path) -> "Description":
        """Raises UserError when ``run.json`` is not what ``to_json`` wrote."""
        file = checkpoint / "run.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                Progress(**data["progress"]),
                data["counters"],
                data["config"],
                data["tokenizer"],
                tuple(Era.model_validate(era) for era in data["eras"]),
                data["optimizer_state"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}: cannot be read, or is of an older version ({error!r}); point `latest` at another checkpoint, "
                "or choose another name for a new run"
            ) from error

    def changes(self, config: RunConfig) -> dict[str, tuple[Any, Any]]:
        """Keys whose value differs between the checkpoint's config and this one, with both values."""
        saved, now = dict(_flat(self.config)), dict(_flat(plain(config)))
        keys = [*saved, *(key for key in now if key not in saved)]
        return {key: (saved.get(key), now.get(key)) for key in keys if saved.get(key) != now.get(key)}

    def check_continues(self, config: RunConfig, tokenizer: str) -> None:
        """Raise UserError for changes that would silently give old weights or consumed samples another meaning."""
        problems = [
            f"{key}: {now!r} now, {saved!r} in the checkpoint; set it back, or choose another name for a new run"
            for key, (saved, now) in self.changes(config).items()
            if key in _FIXED
            or (
                key.endswith(".held_out_share") and None not in (saved, now)
            )  # else it would train on what was held out
            or (key.startswith("model.") and not key.startswith(_FREE_IN_MODEL))
        ]
        if self._skipped(self.config["data"].get("skip_steps", [])) != self._skipped(
            plain(config)["data"]["skip_steps"]
        ):
            problems.append(
                f"data.skip_steps: differs before step {self.progress.step}, which the checkpoint has behind it; name "
                "steps from there on, or go back to an earlier checkpoint"
            )
        if config.data.skip_steps and Schedules(config).samples_at(self.progress.step) != self.progress.samples:
            problems.append(
                "data.skip_steps: the batch sizes of this run have changed on the way, so its steps cannot be told "
                "from the config; set batch.* back, or change the data's weights instead"
            )
        if self.tokenizer != tokenizer:
            problems.append(
                f"data.tokenizer: {config.data.tokenizer} is not the tokenizer that the checkpoint was trained with; "
                "name that one, or choose another name for a new run"
            )
        if problems:
            raise UserError(problems)

    def _skipped(self, ranges: Sequence[Mapping[str, int]]) -> list[tuple[int, int]]:
        """The ranges of steps, as far as the checkpoint has come."""
        ends = [(skip["from_step"], min(skip["from_step"] + skip["steps"], self.progress.step)) for skip in ranges]
        return sorted((first, last) for first, last in ends if first < last)


def plain(config: RunConfig) -> dict[str, Any]:
    """The resolved config as JSON data."""
    data: dict[str, Any] = config.model_dump(mode="json")
    return data


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
