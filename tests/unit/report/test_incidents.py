"""Events are sorted by what was done."""

from typing import Any

import pytest

from glm130b.report.incidents import Kind, kind_of
from glm130b.report.reading import Happening
from tests.unit.training.stability.readings import calm, settled, verdicts


def happening(name: str, **details: Any) -> Happening:
    return Happening("t", 1, name, "", details)


@pytest.mark.parametrize(
    ("actions", "kind"),
    [
        ("[warn]", Kind.SPIKE),
        ("[skip_update]", Kind.ACTION),
        ("[shrink_alpha]", Kind.ACTION),
        ("[rewind]", Kind.ACTION),
        ("[stop]", Kind.ACTION),
    ],
)
def test_a_spike_of_the_guard(actions: str, kind: Kind) -> None:
    guard = settled(f"stability.gradient_norm.actions={actions}", "stability.gradient_norm.in_a_row=1")
    (verdict,) = verdicts(guard, [calm(32, gradient_norm=9.0)])
    (finding,) = verdict.findings
    assert kind_of(happening(finding.rule.replace("_", " "), **finding.details)) is kind, finding.message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resume", Kind.RESTART),
        ("ended", Kind.RESTART),
        ("rewound", Kind.ACTION),
        ("checkpoint failed", Kind.CHECKPOINT),
        ("damaged checkpoint", Kind.CHECKPOINT),
        ("slow rank", Kind.OTHER),
    ],
)
def test_other_events(name: str, kind: Kind) -> None:
    assert kind_of(happening(name)) is kind
