"""What a run has left in its folder, and whether it is what the undisturbed run left."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.incidents import Start
from tests.harness.records import without_machine

_SAVED = re.compile(r"checkpoint saved: step (\d+)")


@dataclass(frozen=True)
class Run:
    """A run that has been started once or several times."""

    folder: Path
    starts: list[Start]

    @property
    def records(self) -> list[dict[str, Any]]:
        """``metrics.jsonl`` without what the machine says: one a step, one an evaluation."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [without_machine(json.loads(line)) for line in lines]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The records of the steps alone."""
        return [record for record in self.records if record["kind"] == "train"]

    @property
    def losses(self) -> list[float]:
        return [record["loss"] for record in self.steps]

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """``events.jsonl``, all or those of one name."""
        file = self.folder / "events.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [event for event in map(json.loads, lines) if name in ("", event["name"])]

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    @property
    def saved_steps(self) -> list[int]:
        return sorted(int(path.name[5:]) for path in self.checkpoints.glob("step-*"))

    def tensors(self, step: int) -> dict[str, str]:
        """SHA-256 of every file of tensors in the checkpoint: equal exactly when all weights and moments are, bit for
        bit, for runs of one layout."""
        files = sorted(self.checkpoint(step).glob("*.distcp"))
        assert files, f"no tensors in {self.checkpoint(step)}"
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def description(self, step: int) -> dict[str, Any]:
        """``run.json``, without what says where, by which code, and after how many restarts."""
        data: dict[str, Any] = json.loads((self.checkpoint(step) / "run.json").read_text(encoding="utf-8"))
        return {key: value for key, value in data.items() if key not in ("config", "resumes", "versions")}


def assert_equal_ends(run: Run, undisturbed: Run, *, steps: int) -> None:
    """The run has finished, and every number of every step and every bit of its last checkpoint is the undisturbed
    run's."""
    assert run.starts[-1].statuses == [0] * len(run.starts[-1].statuses), run.starts[-1].everything_said
    assert run.records == undisturbed.records
    assert run.tensors(steps) == undisturbed.tensors(steps)
    assert run.description(steps) == undisturbed.description(steps)


def assert_nothing_lost(run: Run, *, restarts: int = 1) -> None:
    """Every restart went on from the newest checkpoint that the start before had told of, or from a newer one."""
    assert len(run.starts) == restarts + 1, run.starts[-1].everything_said
    saved = 0
    for before, after in zip(run.starts, run.starts[1:], strict=False):
        said = before.said()
        if (rewound := said.rfind(": rewound: ")) >= 0:  # what was saved before has been gone back from
            saved, said = 0, said[rewound:]
        saved = max([saved, *(int(step) for step in _SAVED.findall(said))])
        assert after.steps[0] > saved, f"step {saved} was saved, and {after.steps[0]} is the first after the restart"
        assert after.steps[0] <= max(before.steps, default=0) + 1
