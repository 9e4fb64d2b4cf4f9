"""The folder of a run at its restarts, and the weights that it begins with."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from glm130b import pretrain
from glm130b.config import patience
from glm130b.config.errors import FileSystemGone, UserError
from glm130b.environment import Launch
from tests.harness.synthetic import small_config

RESTART = Launch(rank=0, local_rank=0, world_size=1, restarts=1)


def test_a_restart_that_finds_no_folder_of_runs_may_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    with pytest.raises(FileSystemGone, match="runs/small: is not there although the run has been started before"):
        pretrain._locked(tmp_path / "runs" / "small", small_config(), RESTART)
    assert sum(slept) == small_config().checkpoint.patience_seconds
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("number", "status"), [(errno.EACCES, 2), (errno.ESTALE, 1)])
def test_initial_weights_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, number: int, status: int) -> None:
    def damages(checkpoint: Path, topology: object) -> list[str]:
        raise OSError(number, "no on rank 3 (node-1)", str(checkpoint / "a.distcp"))

    monkeypatch.setattr(pretrain, "damages", damages)
    with pytest.raises(UserError, match=r"^initial_weights: theirs/a.distcp: cannot be read \(no on rank 3") as raised:
        pretrain._load_initial_weights(SimpleNamespace(topology=None), Path("theirs"))  # type: ignore[arg-type]
    assert raised.value.exit_status == status
