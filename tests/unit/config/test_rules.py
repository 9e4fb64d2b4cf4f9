"""Every rule across keys, one broken config each."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.config.rules import check, problems

TINY = Path(__file__).parents[1] / "run.yaml"


def broken(*overrides: str, world_size: int | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_config(TINY, overrides, world_size=world_size)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("overrides", "beginning"),
    [
        (["model.hidden_size=66"], "model.hidden_size: 66 is not a multiple of 4"),
        (["model.hidden_size=60"], "model.hidden_size: 60 over 4 heads is 15 a head"),
        (["parallel.tensor=4", "model.num_attention_heads=2"], "model.num_attention_heads: 2 is not a multiple of 4"),
        (["model.ffn_hidden_size=177"], "model.ffn_hidden_size: 177 is not a multiple of 2"),
        (["model.vocab_size=4095"], "model.vocab_size: 4095 is not a multiple of 2"),
        (["model.embedding_gradient_shrink.alpha=0"], "model.embedding_gradient_shrink.alpha: 0 is not above 0"),
        (["model.embedding_gradient_shrink.alpha=2"], "model.embedding_gradient_shrink.alpha: 2 is not above 0"),
        (
            ["model.num_layers=5"],
            "model.num_layers: 5 is not a multiple of 2 (parallel.pipeline); write for example 4 or 6",
        ),
        (
            ["parallel.embedding_and_head_count_as_layers=true", "model.num_layers=7", "parallel.pipeline=4"],
            "model.num_layers: 7 layers, embedding and head do not fill 4 stages evenly",
        ),
        (["parallel.zero_stage=2"], "parallel.zero_stage: 2 shards gradients, which 2 pipeline stages still add to"),
        (["batch.global_size=18", "batch.ramp=null"], "batch.global_size: 18 is not a multiple of 4"),
        (["evaluation.samples=62"], "evaluation.samples: 62 is not a multiple of 4"),
        (["batch.ramp={start: 6, increment: 5, over_samples: 9}"], "batch.ramp.start: 6 is not a multiple of 4"),
        (["batch.ramp={start: 4, increment: 6, over_samples: 9}"], "batch.ramp.increment: 6 is not a multiple of 4"),
        (["batch.ramp.start=16"], "batch.ramp.start: 16 is not below batch.global_size 16"),
        (["batch.ramp.start=20"], "batch.ramp.start: 20 is not below batch.global_size 16"),
        (["batch.ramp.start=4", "batch.ramp.increment=8"], "batch.ramp.increment: 8 does not divide the way of 12"),
        (["data.sequence_length=254"], "data.sequence_length: 254 is not a multiple of 4"),
        (["objective.samples_per_row=8"], "objective.samples_per_row: 8 samples in 256 tokens leave 32 each"),
        (["objective.instruction_share=1.5"], "objective.instruction_share: 1.5 is not from 0 to 1"),
        (["objective.mask_share={start: -0.1, end: 1}"], "objective.mask_share: -0.1 is not from 0 to 1"),
        (["data.instructions={}"], "data.instructions: is empty although objective.instruction_share is above 0"),
        (["data.text={}"], "data.text: is empty although objective.instruction_share is below 1"),
        (["data.text.code.weight={start: 1, end: -1}"], "data.text.code.weight: falls below 0"),
        (["data.instructions.facts.weight=0"], "data.instructions: all weights are 0 at sample 0"),
        (["optimizer.learning_rate.minimum=1"], "optimizer.learning_rate.minimum: 1 is above peak 0.002"),
        (["optimizer.learning_rate.warmup_samples=3201"], "optimizer.learning_rate.warmup_samples: 3201 is more than"),
    ],
)
def test_a_broken_rule_is_named(overrides: list[str], beginning: str) -> None:
    found = broken(*overrides)
    matching = [problem for problem in found if problem.startswith(beginning)]
    assert len(matching) == 1, found
    assert ";" in matching[0], "a problem names its mend"


@pytest.mark.parametrize(
    "overrides",
    [
        ["parallel.pipeline=1", "parallel.zero_stage=2"],
        ["parallel.pipeline=1", "model.num_layers=5", "parallel.embedding_and_head_count_as_layers=true"],
        ["parallel.pipeline=4", "model.num_layers=6", "parallel.embedding_and_head_count_as_layers=true"],
        ["objective.instruction_share=0", "data.instructions={}"],
        ["objective.instruction_share=1", "data.text={}"],
        ["optimizer.learning_rate.warmup_samples=3200"],
        ["optimizer.learning_rate.minimum=2e-3"],
        ["model.embedding_gradient_shrink.alpha={start: 1, end: 0.1, over_samples: 100}"],
        ["data.text.code.weight=0"],
    ],
)
def test_the_edge_of_a_rule_is_allowed(overrides: list[str]) -> None:
    assert problems(load_config(TINY, overrides)) == []


@pytest.mark.parametrize(
    ("english", "code", "sample"),
    [
        ("{start: 1, end: 0, from_samples: 100, over_samples: 50}", "0", 150),
        ("{start: 0, end: 1, from_samples: 100, over_samples: 50}", "{start: 1, end: 0, from_samples: 60}", 60),
        ("{start: 1, end: 0, from_samples: 100}", "{start: 0, end: 1, from_samples: 100}", None),
        ("{start: 0, end: 1, from_samples: 100, over_samples: 9}", "{start: 1, end: 0, from_samples: 100}", 100),
        ("{start: 1, end: 0, from_samples: 3200}", "0", None),
    ],
)
def test_there_is_always_a_text_to_draw_from(english: str, code: str, sample: int | None) -> None:
    overrides = [
        f"data.text.english.weight={english}",
        f"data.text.code.weight={code}",
        "data.text.chinese.weight=0",
    ]
    if sample is None:
        assert problems(load_config(TINY, overrides)) == []
    else:
        (problem,) = broken(*overrides)
        assert problem.startswith(f"data.text: all weights are 0 at sample {sample} ")


def test_a_job_of_the_wrong_size_is_told_what_to_start() -> None:
    assert broken(world_size=4) == [
        (
            "parallel: tensor 2 x pipeline 2 x data 2 needs 8 processes, the launcher started 4; "
            "start 8 (deepspeed --num_accelerators 8 ...) or set parallel.data=1"
        )
    ]
    assert broken(world_size=3) == [
        (
            "parallel: tensor 2 x pipeline 2 x data 2 needs 8 processes, the launcher started 3; "
            "start 8 (deepspeed --num_accelerators 8 ...)"
        )
    ]
    assert broken("parallel.data=null", world_size=6) == [
        (
            "parallel: tensor 2 x pipeline 2 needs a multiple of 4 processes, the launcher started 6; "
            "start 8 (deepspeed --num_accelerators 8 ...)"
        )
    ]


def test_an_open_data_size_follows_from_the_processes() -> None:
    config = load_config(TINY, ["parallel.data=null"])
    check(config, world_size=4)
    check(config, world_size=8)
    assert any("needs a multiple of 4" in problem for problem in problems(config, world_size=0))
    found = problems(config, world_size=24)
    assert any(problem.startswith("batch.global_size: 16 is not a multiple of 12") for problem in found)
    assert not any(problem.startswith("parallel") for problem in found)


def test_the_suggested_layers_and_increment_are_right() -> None:
    flag = "parallel.embedding_and_head_count_as_layers=true"
    (problem,) = broken(flag, "model.num_layers=69", "parallel.pipeline=8", "parallel.data=1")
    assert problem.endswith("write for example 62 or 70")
    load_config(TINY, [flag, "model.num_layers=70", "parallel.pipeline=8"])
    (problem,) = broken(flag, "model.num_layers=2", "parallel.pipeline=4")
    assert problem.endswith("write for example 6")
    load_config(TINY, [flag, "model.num_layers=6", "parallel.pipeline=4"])
    (problem,) = broken("batch.ramp.start=4", "batch.ramp.increment=8")
    assert problem.endswith("write for example 4")
    load_config(TINY, ["batch.ramp.start=4", "batch.ramp.increment=4"])


def test_everything_at_once() -> None:
    found = broken(
        "model.hidden_size=66",
        "model.vocab_size=4095",
        "parallel.zero_stage=2",
        "batch.ramp.start=16",
        "optimizer.learning_rate.minimum=1",
        world_size=4,
    )
    assert len(found) == 6
