"""A change of the data mixture that made the loss diverge, cured by ramping mixture and learning rate: 2022-05-29."""

import pytest

from tests.harness.incidents_strikes import UPDATE, Strike, be_killed
from tests.incidents.conftest import ROWS, Site, Undisturbed

HERE = 12
"""Step of the checkpoint that the changed run goes on from."""
FROM = HERE * ROWS
MIXTURE = f"data.text.others.weight={{start: 0.2, end: 0.8, from_samples: {FROM}, over_samples: 32}}"
RATE = f"interventions=[{{from_samples: {FROM}, learning_rate_factor: 0.5, over_samples: 16}}]"
AT_ONCE = "checkpoint.asynchronous=false"


@pytest.mark.full
def test_mixture_and_learning_rate_are_ramped_from_a_sample_on(site: Site, undisturbed: Undisturbed) -> None:
    """The past stays as it was, number for number; what changes is printed and recorded."""
    before = undisturbed()
    run = site.run(AT_ONCE, faults=[Strike(1, UPDATE, be_killed, call=15)], most_starts=1)
    run = site.run(AT_ONCE, MIXTURE, RATE)
    assert [start.statuses for start in run.starts] == [[0, 0]], run.starts[0].said()
    assert run.starts[0].steps[0] == HERE + 1
    train, undisturbed_train = run.steps, before.steps
    assert train[:HERE] == undisturbed_train[:HERE]
    factors = [now["learning_rate"] / then["learning_rate"] for now, then in zip(train, undisturbed_train, strict=True)]
    assert factors[HERE:] == pytest.approx([0.875, 0.75, 0.625] + [0.5] * (len(train) - HERE - 3))
    drawn, drawn_before = (each[-1]["tokens/text.others"] for each in (train, undisturbed_train))
    assert drawn > 1.3 * drawn_before
    (resumed,) = run.events("resume")
    assert {"data.text.others.weight.end", "interventions"} <= set(resumed["details"]["changes"])
    assert "data.text.others.weight.end" in run.starts[0].said()


@pytest.mark.full
def test_a_change_that_would_alter_the_past_is_refused(site: Site) -> None:
    run = site.run(AT_ONCE, faults=[Strike(1, UPDATE, be_killed, call=15)], most_starts=1)
    records = run.records
    too_early = f"interventions=[{{from_samples: {FROM - ROWS}, learning_rate_factor: 0.5}}]"
    for change, named in ((too_early, "interventions"), ("seed=2", "seed"), ("model.num_layers=4", "num_layers")):
        refused = site.run(AT_ONCE, change).starts
        assert refused[0].statuses[0] == 2
        assert f"glm130b: error: {named}" in refused[0].said() or f".{named}" in refused[0].said()
        assert "Traceback" not in refused[0].said()
    assert run.records == records  # nothing was harmed by the attempts
    assert site.run(AT_ONCE).starts[0].statuses == [0, 0]
