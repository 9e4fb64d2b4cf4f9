"""Nodes that died: 2022-05-07, 05-11, 05-20, 05-22, 05-26, 06-02, 06-08, 06-09, 06-19, 06-26."""

import pytest

from tests.harness.incidents_run import assert_equal_ends, assert_nothing_lost
from tests.harness.incidents_strikes import FORWARD, UPDATE, FileStrike, Strike, be_killed
from tests.incidents.conftest import STEPS, Site, Undisturbed

FOUR_RANKS = ("parallel.tensor=2", "parallel.pipeline=2", "parallel.data=1")


@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(Strike(1, FORWARD, be_killed, call=16), id="in the forward pass"),
        pytest.param(
            Strike(0, UPDATE, be_killed, call=15),
            id="the first rank, while the other waits in the reduce",
            marks=pytest.mark.full,
        ),
        pytest.param(Strike(1, UPDATE, be_killed, call=12, after=True), id="after the update", marks=pytest.mark.full),
        pytest.param(Strike(1, FORWARD, be_killed), id="before anything is saved", marks=pytest.mark.full),
    ],
)
def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(
    site: Site, undisturbed: Undisturbed, strike: Strike
) -> None:
    run = site.run(faults=[strike])
    assert run.starts[0].statuses[strike.rank or 0] == -9
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_killed_before_the_run_has_a_folder(site: Site, undisturbed: Undisturbed) -> None:
    """A restart that finds nothing begins the run; it does not wait for a file system that is not gone."""
    run = site.run("checkpoint.patience_seconds=4", faults=[FileStrike(0, "os.mkdir", "/run", be_killed)])
    assert run.starts[0].steps == []
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
@pytest.mark.parametrize("rank", range(4))
def test_any_rank_of_a_grid(site: Site, undisturbed: Undisturbed, rank: int) -> None:
    """TP 2 x PP 2: the others wait for the dead one in four kinds of collectives."""
    run = site.run(*FOUR_RANKS, faults=[Strike(rank, UPDATE, be_killed, call=10)], grace_seconds=30.0)
    assert run.starts[0].hanging == []
    assert_nothing_lost(run)
    assert_equal_ends(run, undisturbed(*FOUR_RANKS), steps=STEPS)


@pytest.mark.full
def test_one_failure_after_the_other(site: Site, undisturbed: Undisturbed) -> None:
    """A node that dies in every start, each time a little later, does not keep the run from its end."""
    run = site.run("checkpoint.asynchronous=false", lasting=[Strike(1, UPDATE, be_killed, call=9)], most_starts=6)
    assert_nothing_lost(run, restarts=3)
    assert_equal_ends(run, undisturbed(), steps=STEPS)


@pytest.mark.full
def test_with_fewer_nodes_the_run_goes_on_with_the_same_batch(site: Site, undisturbed: Undisturbed) -> None:
    """A node that nobody replaces: half the data-parallel ranks, the same rows in every step."""
    words = ("parallel.data=largest", "model.hidden_dropout=0.0")
    site.run(*words, processes=2, faults=[Strike(1, UPDATE, be_killed, call=15)], most_starts=1)
    run = site.run(*words, processes=1)
    assert run.starts[0].statuses == [0]
    assert run.starts[0].steps[0] > 6
    whole = undisturbed("model.hidden_dropout=0.0")
    assert run.losses == pytest.approx(whole.losses, abs=1e-5)
