"""What a start warns of is told at the step that the run goes on from."""

import errno
from functools import partial

from tests.harness.incidents_strikes import UPDATE, Strike, be_killed, fail_to_write, set_the_clock
from tests.incidents.conftest import ROWS, SAVE_EVERY, Site


def test_warnings_of_a_restart_stand_where_it_goes_on(site: Site) -> None:
    """A file system without locks, and a rank whose clock is a day ahead."""
    no_locks = Strike(0, "fcntl.flock", partial(fail_to_write, errno.ENOLCK))
    odd_rank = Strike(1, "glm130b.assembly.local_facts", partial(set_the_clock, 1.0))
    run = site.run(
        f"train_samples={(SAVE_EVERY + 4) * ROWS}",
        "checkpoint.asynchronous=false",
        faults=[Strike(1, UPDATE, be_killed, call=SAVE_EVERY + 2)],
        lasting=[no_locks, odd_rank],
    )
    assert len(run.starts) == 2, run.starts[-1].everything_said
    for name in ("no lock", "rank differs"):
        assert [event["step"] for event in run.events(name)] == [0, SAVE_EVERY], run.starts[-1].everything_said
