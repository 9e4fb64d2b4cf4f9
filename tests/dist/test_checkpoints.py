"""What a checkpoint promises: the same layout goes on bit for bit, any other to rounding."""

from pathlib import Path
from typing import Any

import pytest

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.checkpoint.released.importing import import_released
from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.released import released_weights, restored, write_released, write_tokenizer
from tests.harness.training import live_run, resume, save_then_continue
from tests.numerics.test_against_reference import laid_out


def comparable(numbers: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(step["loss"], step["gradient_norm"]) for step in numbers]


def timeless(numbers: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in step.items() if k not in ("seconds", "tokens_per_second")} for step in numbers]


@pytest.mark.parametrize(
    ("layout", "precision", "parallel"),
    [
        ("TP1 PP1 DP1", "fp32", {}),
        ("TP2 PP2 DP2", "fp32", {}),
        ("TP2 PP2 DP2", "fp16", {}),
        ("TP2 PP2", "bf16", {"virtual_stages": 2}),
        ("DP2", "fp16", {}),
        ("TP2", "bf16", {"sequence_parallel": True, "offload_optimizer": True}),
    ],
)
def test_the_same_layout_resumes_bit_for_bit(
    tmp_path: Path, layout: str, precision: str, parallel: dict[str, Any]
) -> None:
    config, world_size = laid_out(
        layout,
        parallel=parallel,
        precision={"dtype": precision, "loss_scale": {"initial_power": 20, "hysteresis": 1, "window_steps": 3}},
        model={"hidden_dropout": 0.1, "attention_dropout": 0.1},
    )
    undisturbed = run_distributed(save_then_continue, world_size, config, tmp_path, 5, 5)
    resumed = run_distributed(resume, world_size, config, tmp_path, 5)
    assert [timeless(rank) for rank in resumed] == [timeless(rank) for rank in undisturbed]


@pytest.mark.parametrize(
    ("layout", "parallel"),
    [
        ("TP1 PP1 DP1", {}),
        ("TP1 PP1 DP1", {"pipeline": 4}),
        ("DP2", {"tensor": 2}),
        ("DP2", {"zero_stage": 2}),
        ("TP2 PP2", {"sequence_parallel": True, "offload_optimizer": True}),
        ("PP2", {"virtual_stages": 2}),
    ],
)
def test_any_layout_loads_what_another_saved(tmp_path: Path, layout: str, parallel: dict[str, Any]) -> None:
    saved, world_size = laid_out("TP2 PP2 DP2")
    undisturbed = run_distributed(save_then_continue, world_size, saved, tmp_path, 4, 6)[0]
    other, processes = laid_out(layout, parallel=parallel)
    processes = other.parallel.tensor * other.parallel.pipeline * (other.parallel.data or 1)
    resumed = run_distributed(resume, processes, other, tmp_path, 6)[0]
    for first, second in zip(comparable(undisturbed), comparable(resumed), strict=True):
        assert second == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"model": {"ffn_hidden_size": 64}}, r"model\.ffn_hidden_size: 64 now, 48 in the checkpoint"),
        ({"model": {"num_layers": 2}}, r"model\.num_layers: 2 now, 4 in the checkpoint"),
        ({"model": {"num_attention_heads": 2}}, r"model\.num_attention_heads: 2 now, 4 in the checkpoint"),
        ({"seed": 12}, r"seed: 12 now, 11 in the checkpoint"),
    ],
)
def test_a_run_that_is_not_the_saved_one_is_refused(tmp_path: Path, sections: dict[str, Any], problem: str) -> None:
    saved, _ = laid_out("TP1 PP1 DP1")
    run_distributed(save_then_continue, 1, saved, tmp_path, 1, 0)
    other, _ = laid_out("TP1 PP1 DP1", **sections)
    with pytest.raises(UserError, match=problem):
        run_distributed(resume, 1, other, tmp_path, 1)


def test_another_optimizer_is_refused_by_name_of_the_tensor(tmp_path: Path) -> None:
    saved, _ = laid_out("TP1 PP1 DP1", optimizer={"name": "sgd"})
    run_distributed(save_then_continue, 1, saved, tmp_path, 1, 0)
    other, _ = laid_out("TP1 PP1 DP1")
    with pytest.raises(UserError, match=r"exp_avg/\S+ \(and \d+ more tensors\) missing"):
        run_distributed(resume, 1, other, tmp_path, 1)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """Sections of a run that has imported released weights of four shards, and its first steps in one process."""
    folder = tmp_path_factory.mktemp("imported")
    sections = {"folder": str(folder / "runs"), "data": {"tokenizer": str(write_tokenizer(folder))}}
    config, _ = laid_out("TP1 PP1 DP1", **sections)
    import_released(write_released(folder / "released", released_weights(config.model), 4), config)
    return sections, run_distributed(resume_imported, 1, config, 6)[0]


def resume_imported(launch: Launch, config: RunConfig, count: int) -> list[dict[str, float]]:
    run = live_run(config, launch)
    _, numbers = run.take_steps(count, restored(run))
    disconnect()
    return numbers


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # an import needs no job
@pytest.mark.parametrize(
    ("parallel", "world_size"),
    [({"tensor": 2, "data": 2}, 4), ({"pipeline": 2}, 2), ({"tensor": 2, "pipeline": 2, "data": 2}, 8)],
)
def test_any_layout_goes_on_from_imported_weights(
    imported: tuple[dict[str, Any], list[dict[str, float]]], parallel: dict[str, int], world_size: int
) -> None:
    sections, alone = imported
    config, _ = laid_out("TP1 PP1 DP1", parallel=parallel, **sections)
    for rank in run_distributed(resume_imported, world_size, config, 6):
        for first, second in zip(comparable(alone), comparable(rank), strict=True):
            assert second == pytest.approx(first, abs=1e-5)


def test_imported_weights_start_without_moments(imported: tuple[dict[str, Any], list[dict[str, float]]]) -> None:
    """Also in a run that has taken steps before it restores."""
    sections, alone = imported
    config, _ = laid_out("TP1 PP1 DP1", **sections)
    assert [timeless(run_distributed(step_then_resume_imported, 1, config, 6)[0])] == [timeless(alone)]


def step_then_resume_imported(launch: Launch, config: RunConfig, count: int) -> list[dict[str, float]]:
    run = live_run(config, launch)
    run.take_steps(2)
    _, numbers = run.take_steps(count, restored(run))
    disconnect()
    return numbers


def test_a_save_cut_short_leaves_the_one_before(tmp_path: Path) -> None:
    saved, _ = laid_out("TP1 PP1 DP1")
    run_distributed(save_then_continue, 1, saved, tmp_path, 1, 0)
    folder = CheckpointFolder(tmp_path)
    before = folder.latest()
    assert before is not None
    (folder.begin(step=2) / "__0_0.distcp").write_bytes(b"half a shard")
    assert folder.latest() == before
    assert not (tmp_path / "step-00000002").exists()


def test_a_latest_that_names_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("step-00000007")
    with pytest.raises(UserError, match=r"latest: names 'step-00000007', which is not a whole checkpoint"):
        CheckpointFolder(tmp_path).latest()
