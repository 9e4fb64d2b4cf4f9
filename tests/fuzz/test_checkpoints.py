"""Checkpoints of strangers, and those that a disk has damaged: loaded whole, or refused by name; never executed."""

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from glm130b.checkpoint.checksums import CHECKSUMS
from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.planner import Slice
from glm130b.checkpoint.storage import load_slices
from glm130b.config.errors import UserError
from tests.fuzz.examples import command, contents, ends_well, numbers, search
from tests.fuzz.trees import damaged, mutated
from tests.harness.checkpoints import SHAPES, save_small
from tests.harness.synthetic import small_config

FILES = ("run.json", "tensors.json", CHECKSUMS, "__0_0.distcp")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class Bomb:
    """What a pickle of a stranger does when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(CheckpointFolder(tmp_path_factory.mktemp("run") / "checkpoints"), 10)


def load(checkpoint: Path) -> None:
    """As a run does; a tensor that comes back has what the file says."""
    Description.read(checkpoint).check_continues(small_config(), "abc")
    slices = [Slice.whole(key, torch.zeros(shape)) for key, shape in SHAPES.items()]
    load_slices(slices, checkpoint)


def loaded_or_refused(checkpoint: Path) -> None:
    before = contents(checkpoint.parent)
    ends_well(partial(load, checkpoint))
    for task in ("inspect", "verify"):
        command(["checkpoint", task, str(checkpoint)])
    command(["checkpoint", "list", str(checkpoint.parent)])
    assert contents(checkpoint.parent) == before


def with_change(whole: Path, folder: Path) -> Callable[[tuple[str, bytes, bool]], None]:
    """A check of the checkpoint with one file changed, and its checksum with it or not."""

    def check(change: tuple[str, bytes, bool]) -> None:
        name, data, is_meant = change
        checkpoint = folder / "step-00000010"
        shutil.rmtree(checkpoint, ignore_errors=True)
        shutil.copytree(whole, checkpoint)
        (checkpoint / name).write_bytes(data)
        if is_meant and name != CHECKSUMS:
            sums = json.loads((checkpoint / CHECKSUMS).read_text())
            sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (checkpoint / CHECKSUMS).write_text(json.dumps(sums))
        loaded_or_refused(checkpoint)

    return check


@numbers(40, 400)
def test_damaged_files(examples: int, whole: Path, tmp_path: Path) -> None:
    changes = [st.tuples(st.just(it), damaged((whole / it).read_bytes()), st.booleans()) for it in FILES]
    search(with_change(whole, tmp_path), st.one_of(changes), examples=examples)


@pytest.mark.parametrize("name", ["run.json", "tensors.json", CHECKSUMS])
@numbers(20, 250)
def test_other_data(examples: int, name: str, whole: Path, tmp_path: Path) -> None:
    tree = json.loads((whole / name).read_text())
    changes = mutated(tree).map(lambda it: (name, json.dumps(it).encode(), True))
    search(with_change(whole, tmp_path), changes, examples=examples)


@pytest.mark.parametrize("name", [*FILES, ".metadata"])
def test_a_pickle_is_never_loaded(name: str, whole: Path, tmp_path: Path) -> None:
    change = (name, pickle.dumps(Bomb()), True)
    search(with_change(whole, tmp_path), st.just(change), examples=1)


def test_names_do_not_lead_out_of_the_folder(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes((whole / "__0_0.distcp").read_bytes())
    checkpoint = shutil.copytree(whole, tmp_path / "step-00000010")
    text = (whole / "tensors.json").read_text()
    for name in ("../secret", str(tmp_path / "secret"), "..", "", "__0_0.distcp/../../secret"):
        (checkpoint / "tensors.json").write_text(text.replace("__0_0.distcp", name))
        with pytest.raises(UserError, match=r"tensors\.json: does not tell where the tensors are"):
            load(checkpoint)
