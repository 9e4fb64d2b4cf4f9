"""``run.json``: what a checkpoint says of the run that saved it, and whether this run may go on from there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from glm130b.config.errors import UserError, unreadable
from glm130b.config.flat import flat
from glm130b.config.interventions import Intervention
from glm130b.config.sections import RunConfig
from glm130b.data.mixing.era import Era
from glm130b.data.mixing.mixture import Mixture
from glm130b.installed import versions
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules
from glm130b.training.stability.memory import Memory

_FREE_IN_MODEL = ("model.attention_dropout", "model.hidden_dropout", "model.embedding_gradient_shrink.")
_FIXED = (
    "seed",
    "data.sequence_length",
    # What the rows of the past were made of.
    "data.isolate_documents",
    "data.with_replacement",
    "objective.samples_per_row",
    "objective.mask.",
    "objective.gmask.",
    "objective.instruction.",
)


@dataclass(frozen=True)
class Resume:
    """A start of the run from one of its checkpoints."""

    time: str
    """UTC, ISO 8601."""
    step: int
    processes: int
    changes: dict[str, tuple[Any, Any]]
    """Keys of the config that had another value when the checkpoint was saved: (then, from now on)."""


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
    corpora: dict[str, str] = field(default_factory=dict)
    """Fingerprint of every corpus that the run has had open, by its key in the config."""
    eras: tuple[Era, ...] = ()
    """How the run's data was mixed so far; empty for imported weights, which have seen none of it."""
    guard: Memory = field(default_factory=Memory)
    """What the stability guard has seen, and every intervention of its own."""
    resumes: tuple[Resume, ...] = ()
    """How the run came here, start after start."""
    optimizer_state: bool = True
    """Whether the optimizer's moments are in it; imported weights have none, and the run that goes on from them starts
    with moments of zero."""

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The guard's; those of the user are in the config."""
        return self.guard.interventions

    def to_json(self) -> str:
        data = asdict(self) | {
            "eras": [era.model_dump(mode="json") for era in self.eras],
            "guard": self.guard.model_dump(mode="json"),
            "versions": versions(),
        }
        return json.dumps(data, indent=1)

    @classmethod
    def read(cls, checkpoint: Path) -> "Description":
        """Raises UserError when ``run.json`` is not what ``to_json`` wrote, FileSystemGone where its file system is."""
        file = checkpoint / "run.json"
        mend = "point `latest` at another checkpoint, or choose another name for a new run"
        try:
            data = _LATER | json.loads(file.read_text(encoding="utf-8"))
            # Strict JSON: a list is a tuple there, and nothing else is taken for what it is not.
            parts = {key: TypeAdapter(kind).validate_json(json.dumps(data[key]), strict=True) for key, kind in _PARTS}
            return cls(**parts)
        except OSError as error:
            raise unreadable(file, error, mend=mend) from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: cannot be read, or is of an older version ({error!r}); {mend}") from error

    def changes(self, config: RunConfig) -> dict[str, tuple[Any, Any]]:
        """Keys whose value differs between the checkpoint's config and this one, with both values."""
        saved, now = ({key: it for key, it in flat(tree) if it != {}} for tree in (self.config, plain(config)))
        keys = [*saved, *(key for key in now if key not in saved)]
        return {key: (saved.get(key), now.get(key)) for key in keys if saved.get(key) != now.get(key)}

    def check_continues(self, config: RunConfig, tokenizer: str, corpora: Mapping[str, str] | None = None) -> None:
        """Raise UserError for changes that would silently give old weights or consumed samples another meaning.

        ``tokenizer`` is the fingerprint of this run's, ``corpora`` those of its open corpora, by their keys in the
        config; without them no source is checked, for who reads no rows.
        """
        try:
            problems = self._problems(config, tokenizer)
            problems += self._other_sources(config, corpora) if corpora is not None else []
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"run.json: its config is not what a run writes ({error!r}); go on from another checkpoint"
            ) from error
        if problems:
            raise UserError(problems)

    def _problems(self, config: RunConfig, tokenizer: str) -> list[str]:
        """The changes of ``check_continues``, one sentence each."""
        problems = [
            f"{key}: {now!r} now, {saved!r} in the checkpoint; set it back, or choose another name for a new run"
            for key, (saved, now) in self.changes(config).items()
            if key.startswith(_FIXED)
            or (
                key.endswith(".held_out_share") and None not in (saved, now)
            )  # else it would train on what was held out
            or (key.startswith("model.") and not key.startswith(_FREE_IN_MODEL))
        ]
        problems += self._rewritten(config)
        if self._skipped(self.config["data"].get("skip_steps", [])) != self._skipped(
            plain(config)["data"]["skip_steps"]
        ):
            problems.append(
                f"data.skip_steps: differs before step {self.progress.step}, which the checkpoint has behind it; name "
                "steps from there on, or go back to an earlier checkpoint"
            )
        schedules = Schedules(config, self.interventions)
        if schedules.skips and schedules.samples_at(self.progress.step) != self.progress.samples:
            problems.append(
                "batch: the batch sizes of this run have changed on the way, so the steps that data.skip_steps or the "
                "stability guard passes over cannot be told from the config; set batch.* back"
            )
        if self.tokenizer != tokenizer:
            problems.append(
                f"data.tokenizer: {config.data.tokenizer} is not the tokenizer that the checkpoint was trained with; "
                "name that one, or choose another name for a new run"
            )
        return problems

    def _other_sources(self, config: RunConfig, corpora: Mapping[str, str]) -> Iterator[str]:
        """Sources that were drawn from and are not what they were, or are not named where a rewind may need them."""
        drawn = Mixture(self.eras).rows(self.progress.samples) if self.eras else {}
        for section, name in dict.fromkeys((kind.section, kind.source) for kind, rows in drawn.items() if rows):
            key, source = f"data.{section}.{name}", getattr(config.data, section).get(name)
            if source is None and config.stability.may_rewind:
                yield f"{key}: was drawn from, and the stability guard may rewind to there; name it, with weight 0"
            if source and self.corpora.get(key) not in (None, corpora.get(key)):
                yield (
                    f"{key}.path: {source.path} is not the corpus that the run has drawn from; name that one and give "
                    "this one a name of its own, or choose another name for a new run"
                )

    def _rewritten(self, config: RunConfig) -> Iterator[str]:
        """Interventions that are not what they were when the samples before the checkpoint were trained on."""

        def past(interventions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
            return [each for each in interventions if each["from_samples"] < self.progress.samples]

        if past(self.config.get("interventions", [])) != past(plain(config)["interventions"]):
            yield (
                f"interventions: differ before sample {self.progress.samples}, which the checkpoint has behind it; set "
                "those back and add one from there on, or go back to an earlier checkpoint"
            )

    def _skipped(self, ranges: Sequence[Mapping[str, int]]) -> list[tuple[int, int]]:
        """The ranges of steps, as far as the checkpoint has come."""
        ends = [(skip["from_step"], min(skip["from_step"] + skip["steps"], self.progress.step)) for skip in ranges]
        return sorted((first, last) for first, last in ends if first < last)


_PARTS: tuple[tuple[str, Any], ...] = (
    ("progress", Progress),
    ("counters", dict[str, Any]),
    ("config", dict[str, Any]),
    ("tokenizer", str),
    ("corpora", dict[str, str]),
    ("eras", tuple[Era, ...]),
    ("guard", Memory),
    ("resumes", tuple[Resume, ...]),
    ("optimizer_state", bool),
)
"""What ``run.json`` holds beside the versions."""
_LATER: dict[str, Any] = {"corpora": {}}
"""What older ones lack."""


def plain(config: RunConfig) -> dict[str, Any]:
    """The resolved config as JSON data."""
    return config.model_dump(mode="json")
