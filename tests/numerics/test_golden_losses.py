"""A hundred steps of the tiny preset give the recorded losses, bit for bit on a recorded kind of CPU, else closely."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

MEND = 'if the numbers were meant to move, record them: make golden REASON="..."'


@pytest.fixture(scope="module")
def golden(root: Path) -> Any:
    """tools/golden_losses.py; the scripts of ``tools/`` import each other by their bare names."""
    sys.path.insert(0, str(root / "tools"))
    return importlib.import_module("golden_losses")


@pytest.fixture(scope="module")
def measured(golden: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """This tree's numbers on this machine."""
    return golden.measured(tmp_path_factory.mktemp("golden"))


def test_losses_and_gradient_norms_are_near_every_recording(golden: Any, measured: Any) -> None:
    recordings = golden.recordings()
    assert {recording.data for recording in recordings} == {measured.data}, f"the rows differ; {MEND}"
    for recorded in recordings:
        assert measured.is_close(recorded), f"{golden.changes(measured, [recorded])}; {MEND}"


def test_losses_and_gradient_norms_are_those_of_this_kind_of_cpu_bit_for_bit(golden: Any, measured: Any) -> None:
    same_kind = [recording for recording in golden.recordings() if measured.is_of_the_same_kind(recording)]
    if not same_kind:
        pytest.skip(f"no recording of this kind of CPU and these versions: {measured.cpu}; {measured.versions}")
    (recorded,) = same_kind
    ours, theirs = (list(zip(run.losses, run.gradient_norms, strict=True)) for run in (measured, recorded))
    differing = [step for step, pair in enumerate(zip(ours, theirs, strict=True), start=1) if pair[0] != pair[1]]
    assert not differing, f"steps {differing}: {golden.changes(measured, [recorded])}; {MEND}"


@pytest.mark.full
@pytest.mark.parametrize(
    "instructions",
    [
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    ],
    ids=["AVX2", "SSE"],
)
def test_older_vector_extensions_stay_within_the_tolerance(
    golden: Any, tmp_path: Path, instructions: dict[str, str]
) -> None:
    """What the tolerance was chosen by: other kernels round otherwise, and a hundred steps do not blow it up."""
    other = golden.measured(tmp_path, environment=instructions)
    for recorded in golden.recordings():
        assert other.losses != recorded.losses
        assert other.is_close(recorded), golden.changes(other, [recorded])


def test_every_recording_is_whole(golden: Any) -> None:
    recordings = golden.recordings()
    assert recordings
    for recording in recordings:
        assert recording.reason
        assert recording.date
        assert len(recording.losses) == len(recording.gradient_norms) == golden.STEPS
        assert recording.losses[-1] < 0.7 * recording.losses[0]  # it has learned, so every part had its say
    kinds = [(recording.cpu, recording.versions) for recording in recordings]
    assert all(kinds.count(kind) == 1 for kind in kinds)


@pytest.mark.parametrize(("step", "change", "close"), [(0, 2e-6, False), (99, -2e-6, False), (50, 5e-7, True)])
def test_one_moved_loss_is_seen(golden: Any, step: int, change: float, close: bool) -> None:
    recorded = golden.recordings()[0]
    losses = [loss + change * (index == step) for index, loss in enumerate(recorded.losses)]
    moved = replace(recorded, losses=losses)
    assert moved.is_close(recorded) is close
    assert golden.changes(moved, [recorded])[0].startswith("this kind of CPU")
    assert moved.largest_change(recorded)[0] == pytest.approx(abs(change), rel=1e-3)


def test_a_moved_gradient_norm_or_other_rows_are_seen(golden: Any) -> None:
    recorded = golden.recordings()[0]
    assert not replace(recorded, data="other").is_close(recorded)
    norms = [norm * (1 + 3e-5) for norm in recorded.gradient_norms]
    assert not replace(recorded, gradient_norms=norms).is_close(recorded)


@pytest.mark.parametrize("words", [[], ["--reason", ""], ["--reason", "  "]])
def test_nothing_is_recorded_without_a_reason(
    golden: Any, capsys: pytest.CaptureFixture[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "measured", None)
    assert golden.main(words) == 2
    assert "no reason given" in capsys.readouterr().err


def test_a_recording_replaces_its_kind_and_drops_those_it_contradicts(
    golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = golden.recordings()[0]
    near = replace(ours, cpu="another", losses=[loss + 4e-7 for loss in ours.losses])
    far = replace(ours, cpu="a third", losses=[loss + 4e-3 for loss in ours.losses])
    monkeypatch.setattr(golden, "ROOT", tmp_path)
    monkeypatch.setattr(golden, "GOLDEN", tmp_path / "golden" / "tiny.json")
    golden.write([replace(ours, reason="old"), near, far])
    monkeypatch.setattr(golden, "measured", lambda folder, reason: replace(ours, reason=reason))
    assert golden.main(["--reason", "a  new\nrule"]) == 0
    assert golden.recordings() == [replace(ours, reason="a new rule"), near]
    printed = capsys.readouterr().out
    assert "this kind of CPU" in printed
    assert "largest change 0.0e+00 of a loss" in printed
    assert "a third" in printed
    assert "no longer the same training" in printed
