"""What run.json says, and which runs may go on from it."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from glm130b.checkpoint.description import Description, plain
from glm130b.config.errors import FileSystemGone, UserError
from glm130b.config.sections import RunConfig
from glm130b.config.stability import LossRule, StabilityConfig
from glm130b.data.mixing.era import Era, continued
from glm130b.training.progress import Level, Progress
from tests.harness.synthetic import small_config


def described(**sections: Any) -> Description:
    return Description(
        Progress(3, 24), {"optimizer_step": 3.0, "loss_scaler": {}}, plain(small_config(**sections)), "abc"
    )


def test_it_reads_back_equal(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(described().to_json())
    assert Description.read(tmp_path) == described()
    assert set(json.loads(described().to_json())["versions"]) == {
        "glm130b",
        "source",
        "torch",
        "megatron-core",
        "deepspeed",
    }


def test_weights_without_optimizer_state_say_so(tmp_path: Path) -> None:
    imported = replace(described(), optimizer_state=False)
    assert json.loads(described().to_json())["optimizer_state"] is True
    (tmp_path / "run.json").write_text(imported.to_json())
    assert Description.read(tmp_path) == imported != described()


def test_what_an_older_checkpoint_has_not_counted_begins_with_none(tmp_path: Path) -> None:
    counted = replace(described(), progress=Progress(3, 24, skipped_updates=2, overflows=1, clipped_updates=1))
    (tmp_path / "run.json").write_text(counted.to_json())
    assert Description.read(tmp_path) == counted
    older = json.loads(counted.to_json())
    del older["progress"]["overflows"], older["progress"]["clipped_updates"]
    (tmp_path / "run.json").write_text(json.dumps(older))
    assert Description.read(tmp_path).progress == Progress(3, 24, skipped_updates=2)


def test_changes_are_listed_with_both_values() -> None:
    config = small_config(optimizer={"weight_decay": 0.2}, train_samples=320)
    assert described().changes(config) == {"train_samples": (160, 320), "optimizer.weight_decay": (0.1, 0.2)}
    assert described().changes(small_config()) == {}


def test_layout_length_rates_and_dropout_may_change() -> None:
    free = small_config(
        parallel={"tensor": 2},
        optimizer={"weight_decay": 0.2},
        train_samples=320,
        model={"hidden_dropout": 0.2, "embedding_gradient_shrink": {"alpha": {"start": 0.1, "end": 0.1}}},
    )
    described().check_continues(free, "abc")


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as raised:
        described().check_continues(small_config(seed=12, model={"hidden_size": 64}), "other")
    keys = [problem.partition(":")[0] for problem in raised.value.problems]
    assert keys == ["seed", "model.hidden_size", "data.tokenizer"]


@pytest.mark.parametrize(
    "strange", [{}, {"data": 3}, {"data": {}, "interventions": [3]}, {"data": {"skip_steps": [{}]}}]
)
def test_a_strange_config_is_refused(strange: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"run\.json: its config is not what a run writes .* another checkpoint"):
        replace(described(), config=strange).check_continues(small_config(), "abc")


def test_it_tells_how_the_data_was_mixed(tmp_path: Path) -> None:
    config = small_config()
    later = small_config(objective={"mask_share": {"start": 0.5, "end": 0.5}})
    eras = continued(continued((), config, samples=0), later, samples=24)
    assert [era.from_samples for era in eras] == [0, 24]
    (tmp_path / "run.json").write_text(replace(described(), eras=eras).to_json())
    assert Description.read(tmp_path).eras == eras


def test_steps_that_are_behind_a_checkpoint_cannot_be_skipped_any_more() -> None:
    def skipping(*ranges: tuple[int, int]) -> RunConfig:
        return small_config(data={"skip_steps": tuple({"from_step": first, "steps": n} for first, n in ranges)})

    # The checkpoint stands before step 3.
    saved = Description(Progress(3, 24), {}, plain(skipping((1, 4))), "abc")
    for same in ([(1, 2)], [(1, 4)], [(1, 18)], [(1, 4), (9, 4)]):
        saved.check_continues(skipping(*same), "abc")
    for other in ([], [(1, 1)], [(0, 4)]):
        with pytest.raises(UserError, match=r"data\.skip_steps: differs before step 3"):
            saved.check_continues(skipping(*other), "abc")


def test_steps_cannot_be_skipped_once_batch_sizes_have_changed() -> None:
    saved = Description(Progress(3, 24), {}, plain(small_config()), "abc")
    ahead = {"skip_steps": ({"from_step": 6, "steps": 2},)}
    saved.check_continues(small_config(data=ahead), "abc")
    larger = {"global_size": 16}
    saved.check_continues(small_config(batch=larger), "abc")
    with pytest.raises(UserError, match=r"batch: the batch sizes of this run have changed"):
        saved.check_continues(small_config(batch=larger, data=ahead), "abc")


def test_batch_sizes_of_the_past_are_kept(tmp_path: Path) -> None:
    progress = Progress().after_step(8, applied=True).after_step(16, applied=True)
    (tmp_path / "run.json").write_text(replace(described(), progress=progress).to_json())
    assert Description.read(tmp_path).progress.levels == progress.levels == (Level(0, 0, 8), Level(1, 8, 16))


def reading(*names: str) -> RunConfig:
    """A run on text sources of equal weight."""
    sources = {name: {"path": name, "weight": {"start": 1.0, "end": 1.0}} for name in names}
    return small_config(data={"text": sources}, objective={"instruction_share": {"start": 0.0, "end": 0.0}})


def test_a_source_that_was_drawn_from_stays_the_same_corpus(tmp_path: Path) -> None:
    """Wherever it lies; one that has not been drawn from may still become another."""
    config = reading("books", "code")
    eras = continued(continued((), config, samples=0), reading("books", "code", "poems"), samples=24)
    corpora = {f"data.text.{name}": f"1 bytes ({name})" for name in ("books", "code", "poems")}
    saved = replace(described(), config=plain(config), corpora=corpora, eras=eras)
    (tmp_path / "run.json").write_text(saved.to_json())
    saved = Description.read(tmp_path)
    now = reading("books", "code", "poems")
    saved.check_continues(now, "abc", corpora)
    saved.check_continues(now, "abc", corpora | {"data.text.poems": "another"})
    with pytest.raises(UserError, match=r"^data\.text\.code\.path: code is not the corpus that the run has drawn from"):
        saved.check_continues(now, "abc", corpora | {"data.text.code": "another"})


def test_a_checkpoint_from_before_corpora_were_told_refuses_none(tmp_path: Path) -> None:
    config = reading("books")
    older = json.loads(replace(described(), config=plain(config), eras=(Era.of(config),)).to_json())
    del older["corpora"], older["progress"]["levels"]
    (tmp_path / "run.json").write_text(json.dumps(older))
    Description.read(tmp_path).check_continues(config, "abc", {"data.text.books": "any"})


def test_what_a_rewind_may_draw_from_stays_named() -> None:
    before, now = reading("books", "code"), reading("books")
    saved = replace(described(), config=plain(before), eras=(Era.of(before),))
    saved.check_continues(now, "abc", {})
    rewinds = now.model_copy(update={"stability": StabilityConfig(loss=LossRule(actions=("rewind",)))})
    with pytest.raises(UserError, match=r"^data\.text\.code: was drawn from, and the stability guard may rewind"):
        saved.check_continues(rewinds, "abc", {})


def test_what_is_held_out_stays_held_out() -> None:
    def holding_out(**shares: float) -> RunConfig:
        weight = {"start": 1.0, "end": 1.0}
        sources = {name: {"path": name, "weight": weight, "held_out_share": share} for name, share in shares.items()}
        return small_config(data={"text": sources})

    saved = Description(Progress(3, 24), {}, plain(holding_out(books=0.1)), "abc")
    saved.check_continues(holding_out(books=0.1, code=0.2), "abc")
    saved.check_continues(holding_out(code=0.2), "abc")
    with pytest.raises(UserError, match=r"data\.text\.books\.held_out_share: 0\.05 now, 0\.1 in the checkpoint"):
        saved.check_continues(holding_out(books=0.05), "abc")


@pytest.mark.parametrize(
    ("code", "kind", "mend"),
    [
        (errno.ESTALE, FileSystemGone, "bring its file system back"),
        (errno.ENOENT, UserError, "point `latest` at another checkpoint"),
    ],
)
def test_a_file_system_that_is_gone_is_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[UserError], mend: str
) -> None:
    def read_text(path: Path, **_: object) -> None:
        raise OSError(code, "no answer", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(UserError, match=rf"run\.json: cannot be read \(no answer\); {mend}") as caught:
        Description.read(tmp_path)
    assert type(caught.value) is kind
