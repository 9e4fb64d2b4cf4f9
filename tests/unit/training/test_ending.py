"""What a supervisor is told of an end."""

from pathlib import Path

import pytest

from glm130b.config.supervision import SupervisionConfig
from glm130b.training.ending import Ending


@pytest.mark.parametrize(("ending", "status"), [("complete", 0), ("requeue", 75), ("stopped", 3)])
def test_an_ending_has_a_word_and_a_status(tmp_path: Path, ending: str, status: int) -> None:
    Ending(ending).write(tmp_path)
    assert (tmp_path / "ended").read_text() == f"{ending}\n"
    assert Ending(ending).exit_status(SupervisionConfig(requeue_status=75)) == status


def test_a_start_takes_the_word_back(tmp_path: Path) -> None:
    Ending.clear(tmp_path)
    Ending.REQUEUE.write(tmp_path)
    Ending.clear(tmp_path)
    assert not (tmp_path / "ended").exists()


def test_unless_told_otherwise_a_saved_run_ends_well() -> None:
    assert Ending.REQUEUE.exit_status(SupervisionConfig()) == 0
