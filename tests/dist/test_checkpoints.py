"""What a checkpoint promises: the same layout goes on bit for bit, any other to rounding."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from glm130b.checkpoint.checksums import verify
from glm130b.checkpoint.released.importing import import_released
from glm130b.config.derived import least_world_size
from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.parallel.topology import disconnect
from tests.harness.pool import run_distributed
from tests.harness.released import released_weights, restored, write_released, write_tokenizer
from tests.harness.saving import (
    find,
    find_after_trouble,
    find_where_reads_fail,
    save_on_a_full_disk,
    save_while_stepping,
    weights_alone,
)
from tests.harness.synthetic import small_config
from tests.harness.training import live_run, resume, save_then_continue, train_steps
from tests.numerics.test_against_reference import laid_out


def comparable(numbers: list[dict[str, float]]) -> list[tuple[float, float]]:
    return [(step["loss"], step["gradient_norm"]) for step in numbers]


@pytest.mark.parametrize(
    ("layout", "precision", "parallel"),
    [
        ("TP2 PP2 DP2", "fp32", {}),
        ("TP2", "bf16", {"sequence_parallel": True, "offload_optimizer": True}),
        ("DP2", "fp16", {}),
        pytest.param("TP1 PP1 DP1", "fp32", {}, marks=pytest.mark.full),
        pytest.param("TP2 PP2 DP2", "fp16", {}, marks=pytest.mark.full),
        pytest.param("TP2 PP2", "bf16", {"virtual_stages": 2}, marks=pytest.mark.full),
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
    assert resumed == undisturbed


ALONE: dict[str, Any] = {"tensor": 1, "pipeline": 1, "data": 1}
ON_EIGHT: dict[str, Any] = {"tensor": 2, "pipeline": 2, "data": 2}
UNEVEN: dict[str, Any] = {"embedding_and_head_count_as_layers": True}  # 1, 2 and 1 layers on three stages


@pytest.fixture(scope="module")
def saved_on_eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """A checkpoint of TP 2 x PP 2 x DP 2, and the steps that followed it."""
    folder = tmp_path_factory.mktemp("eight")
    return folder, comparable(run_distributed(save_then_continue, 8, small_config(parallel=ON_EIGHT), folder, 4, 6)[0])


@pytest.mark.parametrize(
    "parallel",
    [
        ALONE,
        {"pipeline": 4},
        {"tensor": 4, "data": 2},
        {"tensor": 2, "data": 2},
        {"data": 2, "zero_stage": 2},
        {"tensor": 2, "pipeline": 2, "sequence_parallel": True, "offload_optimizer": True},
        {"pipeline": 2, "virtual_stages": 2},
        {"pipeline": 3, **UNEVEN},
    ],
)
def test_any_layout_loads_what_another_saved(
    saved_on_eight: tuple[Path, list[tuple[float, float]]], parallel: dict[str, Any]
) -> None:
    folder, undisturbed = saved_on_eight
    config = small_config(parallel={**ALONE, **parallel})
    assert comparable(run_distributed(resume, processes(config), config, folder, 6)[0]) == close_to(undisturbed)


@pytest.mark.parametrize(
    "parallel",
    [
        {"data": 2, "zero_stage": 2},
        pytest.param({"pipeline": 2, "virtual_stages": 2, "data": 2}, marks=pytest.mark.full),
        pytest.param({"pipeline": 3, **UNEVEN}, marks=pytest.mark.full),
    ],
)
def test_what_any_layout_saved_is_loaded_by_others(tmp_path: Path, parallel: dict[str, Any]) -> None:
    saved = small_config(parallel={**ALONE, **parallel})
    undisturbed = run_distributed(save_then_continue, processes(saved), saved, tmp_path, 4, 4)[0]
    for other in (small_config(), small_config(parallel={**ALONE, "tensor": 2, "data": 2})):
        assert comparable(run_distributed(resume, processes(other), other, tmp_path, 4)[0]) == close_to(
            comparable(undisturbed)
        )


def processes(config: RunConfig) -> int:
    return least_world_size(config)


def close_to(numbers: list[tuple[float, float]]) -> list[Any]:
    return [pytest.approx(step, abs=1e-5) for step in numbers]


def test_steps_taken_while_a_save_is_written_are_not_in_it(tmp_path: Path) -> None:
    """The copy gives the files that a save at rest gives, byte for byte, and goes on as the run went on."""
    config, world_size = laid_out("TP2 PP2 DP2", model={"hidden_dropout": 0.1})
    undisturbed = run_distributed(save_while_stepping, world_size, config, tmp_path, 3, 3)
    at_rest, meanwhile = (tmp_path / name / "step-00000003" for name in ("at_rest", "meanwhile"))
    assert sorted(file.name for file in at_rest.iterdir()) == sorted(file.name for file in meanwhile.iterdir())
    for file in at_rest.iterdir():
        assert (meanwhile / file.name).read_bytes() == file.read_bytes(), file.name
    resumed = run_distributed(resume, world_size, config, tmp_path / "meanwhile", 3)
    assert resumed == undisturbed


def test_a_full_disk_on_one_rank_leaves_the_run_training(tmp_path: Path) -> None:
    """The saves of step 2 and 4 fail, those of 5, by retry, and 6 do not; the losses are those of an easy run."""
    config, world_size = laid_out("TP2 PP2", checkpoint={"every_steps": 2, "retry_after_steps": 1, "keep_last": 1})
    ranks = run_distributed(save_on_a_full_disk, world_size, config, tmp_path, 6)
    undisturbed = run_distributed(train_steps, world_size, config, 6)
    assert [numbers for numbers, _ in ranks] == undisturbed
    for _, events in ranks:  # all ranks have heard the same
        assert [(event.name, event.step) for event in events] == [
            *[("checkpoint failed", step) for step in (2, 3, 4)],
            *[("checkpoint saved", step) for step in (5, 6)],
        ]
        assert "rank 3: [Errno 28] No space left on device" in events[0].message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000006"]
    assert verify(tmp_path / "step-00000006") == []


@pytest.fixture
def saved_thrice(tmp_path: Path) -> Path:
    """Folder of checkpoints of the steps 1, 2 and 3 of a run on two processes."""
    config, _ = laid_out("DP2")
    for step in (1, 2, 3):
        run_distributed(save_then_continue, 2, config, tmp_path / "checkpoints", step, 0)
    return tmp_path / "checkpoints"


def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_taken(saved_thrice: Path) -> None:
    config, _ = laid_out("TP2")  # every rank verifies a part, whoever wrote it
    for step, file in ((3, "__1_0.distcp"), (2, "run.json")):
        damaged = saved_thrice / f"step-0000000{step}" / file
        damaged.write_bytes(bytes(reversed(damaged.read_bytes())))
    alike = run_distributed(find, 2, config, saved_thrice, 0.0)
    assert alike[0] == alike[1]
    found, told = alike[0]
    assert found == "step-00000001"
    assert [line.partition(" (")[0] for line in told if line.startswith("damaged")] == [
        f"damaged checkpoint: {saved_thrice}/step-0000000{step}/{file}: is not what was written: its SHA-256 differs; "
        f"it is damaged-step-0000000{step} now, and the checkpoint before it is taken"
        for step, file in ((3, "__1_0.distcp"), (2, "run.json"))
    ]
    assert run_distributed(find, 2, config, saved_thrice, 0.0)[0][0] == "step-00000001"
    (saved_thrice / "step-00000001" / "tensors.json").unlink()
    with pytest.raises(UserError, match=r"checkpoints: holds damaged-step-00000002, damaged-step-00000003, latest"):
        run_distributed(find, 2, config, saved_thrice, 0.0)


def test_a_checkpoint_that_the_disk_does_not_give_back_is_passed_over(saved_thrice: Path) -> None:
    """It keeps its name: the disk may be mended."""
    config, _ = laid_out("DP2")
    names = sorted(path.name for path in saved_thrice.iterdir())
    found, told = run_distributed(
        find_where_reads_fail, 2, config, saved_thrice, errno.EIO, "step-00000003/__1_0.distcp"
    )[0]
    assert found == "step-00000002"
    (line,) = [line for line in told if line.startswith("damaged")]
    assert line.startswith(
        f"damaged checkpoint: {saved_thrice}/step-00000003/__1_0.distcp: Input/output error on rank 1 ("
    )
    assert line.endswith("; step-00000003 is passed over, and the checkpoint before it is taken")
    assert sorted(path.name for path in saved_thrice.iterdir()) == names


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_rank_that_cannot_read_is_named_and_nothing_renamed(saved_thrice: Path, code: int) -> None:
    config, _ = laid_out("DP2")
    names = sorted(path.name for path in saved_thrice.iterdir())
    with pytest.raises(FileSystemGone, match=rf"step-\d+/\S+: {os.strerror(code)} on rank 1 \(.*, for 0 s"):
        run_distributed(find_where_reads_fail, 2, config, saved_thrice, code, "step-", 1)
    assert sorted(path.name for path in saved_thrice.iterdir()) == names


def test_the_tries_of_a_start_whose_files_cannot_be_read_hash_no_file_twice(saved_thrice: Path) -> None:
    config, _ = laid_out("DP2")
    (found, first), (_, second) = run_distributed(find_after_trouble, 2, config, saved_thrice)
    assert found == "step-00000003"
    assert first == ["__0_0.distcp", "run.json"]
    assert second == ["__1_0.distcp", "__1_0.distcp", "tensors.json"], "only the one that could not be read"


def test_a_rewind_takes_the_newest_up_to_a_step(saved_thrice: Path) -> None:
    config, _ = laid_out("DP2")
    assert run_distributed(find, 2, config, saved_thrice, 0.0, 2)[0] == ("step-00000002", [])
    assert run_distributed(find, 2, config, saved_thrice, 0.0, 0)[0] == (None, [])
    assert run_distributed(find, 2, config, saved_thrice, 0.0)[0] == ("step-00000003", [])


def test_a_folder_that_is_gone_is_waited_for_and_is_no_new_run(tmp_path: Path) -> None:
    config, _ = laid_out("DP2")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(
        FileSystemGone, match=r"checkpoints: has gone although the run has trained, for 1 s \(checkpoint\.pat"
    ):
        run_distributed(find, 2, config, tmp_path / "checkpoints", 1.0)
    (tmp_path / "checkpoints").mkdir()
    assert run_distributed(find, 2, config, tmp_path / "checkpoints", 0.0)[0] == (None, [])


def test_weights_alone_come_from_any_layout_and_optimizer(tmp_path: Path) -> None:
    """Fine-tuning starts with the weights, moments of zero and fresh counters: as the same weights in one process."""
    sgd = {"name": "sgd", "learning_rate": {"peak": 0.3, "minimum": 0.3, "warmup_samples": 16, "decay_samples": 160}}
    saved, world_size = laid_out("TP2 PP2", optimizer=sgd)
    run_distributed(save_then_continue, world_size, saved, tmp_path, 4, 0)
    checkpoint, (alone, _), (other, _) = tmp_path / "step-00000004", laid_out("TP1 PP1 DP1"), laid_out("DP2")
    counters, first = run_distributed(weights_alone, 1, alone, checkpoint, 3)[0]
    assert counters == {"optimizer_step": 0.0, "loss_scaler": {}}
    assert first[0]["loss"] != pytest.approx(run_distributed(train_steps, 1, alone, 1)[0][0]["loss"], abs=1e-3)
    _, second = run_distributed(weights_alone, 2, other, checkpoint, 3)[0]
    assert comparable(second) == close_to(comparable(first))
    misshapen, _ = laid_out("TP1 PP1 DP1", model={"ffn_hidden_size": 64})
    with pytest.raises(UserError, match=r"has shape \[\d+(, \d+)?\] and the config asks for"):
        run_distributed(weights_alone, 1, misshapen, checkpoint, 0)


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
    [
        ({"tensor": 2, "data": 2}, 4),
        ({"pipeline": 2}, 2),
        pytest.param({"tensor": 2, "pipeline": 2, "data": 2}, 8, marks=pytest.mark.full),
    ],
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
    assert run_distributed(step_then_resume_imported, 1, config, 6)[0] == alone


def step_then_resume_imported(launch: Launch, config: RunConfig, count: int) -> list[dict[str, float]]:
    run = live_run(config, launch)
    run.take_steps(2)
    _, numbers = run.take_steps(count, restored(run))
    disconnect()
    return numbers
