"""Somebody starts a run that is running."""

from functools import partial

import pytest

from tests.harness.incidents import Start, start_job
from tests.harness.incidents_run import assert_equal_ends
from tests.harness.incidents_strikes import FORWARD, Strike, wait_for
from tests.incidents.conftest import STEPS, Site, Undisturbed


@pytest.mark.full
def test_the_second_of_two_runs_refuses_and_the_first_is_unharmed(site: Site, undisturbed: Undisturbed) -> None:
    go_on, seconds = site.folder / "go-on", list[Start]()

    def start_a_second(first: Start) -> None:
        try:
            first.wait_for_step(14)
            seconds.append(start_job(site.words(), folder=site.folder / "second", grace_seconds=1.0))
        finally:
            go_on.touch()

    run = site.run(faults=[Strike(1, FORWARD, partial(wait_for, go_on), call=17)], outside=start_a_second)
    assert seconds[0].statuses[0] == 2
    assert f"{run.folder}: process {run.starts[0].pid(0)} on " in seconds[0].said()
    assert "Traceback" not in seconds[0].everything_said
    assert seconds[0].steps == []
    assert len(run.starts) == 1
    assert_equal_ends(run, undisturbed(), steps=STEPS)
