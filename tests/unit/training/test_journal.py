"""What an event says, and who hears of it."""

import json
import math
from datetime import datetime, timedelta, timezone

from glm130b.training.journal import Event, Journal

SPIKE = Event("spike", 12, "loss 9.1 is 30 deviations above 4.2", {"loss": 9.1})


def test_an_event_in_words_and_as_data() -> None:
    assert str(SPIKE) == "step 12: spike: loss 9.1 is 30 deviations above 4.2"
    line = json.loads(json.dumps(SPIKE.to_dict()))
    time = datetime.fromisoformat(line.pop("time"))
    assert abs(datetime.now(timezone.utc) - time) < timedelta(hours=1)
    assert line == {
        "step": 12,
        "name": "spike",
        "message": "loss 9.1 is 30 deviations above 4.2",
        "details": {"loss": 9.1},
    }


def test_numbers_that_are_not_finite_become_none() -> None:
    details = {"norm": math.inf, "changes": {"clip": (1.0, math.nan)}, "name": "x", "step": 3}
    line = Event("spike", 1, "told", details).to_dict()
    assert json.loads(json.dumps(line, allow_nan=False))["details"] == {
        "norm": None,
        "changes": {"clip": [1.0, None]},
        "name": "x",
        "step": 3,
    }


def test_who_listens_hears_every_event() -> None:
    heard = list[Event]()
    Journal(heard.append).tell(SPIKE)
    assert heard == [SPIKE]


def test_other_ranks_are_silent() -> None:
    Journal(None).tell(SPIKE)
