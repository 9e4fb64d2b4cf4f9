"""Every rule across keys, one broken config each."""

import re
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.config.rules import check, problems

TINY = Path(__file__).parents[1] / "run.yaml"
UNEVEN = "parallel.embedding_and_head_count_as_layers=true"


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
        (
            ["model.vocab_size=4095"],
            "model.vocab_size: 4095 is not a multiple of 2 (parallel.tensor); write for example 4096",
        ),
        (["model.embedding_gradient_shrink.alpha=0"], "model.embedding_gradient_shrink.alpha: 0 is not above 0"),
        (["model.embedding_gradient_shrink.alpha=2"], "model.embedding_gradient_shrink.alpha: 2 is not above 0"),
        (
            ["model.num_layers=5"],
            "model.num_layers: 5 is not a multiple of 2 (parallel.pipeline); write for example 4 or 6",
        ),
        (
            [UNEVEN, "model.num_layers=7", "parallel.pipeline=4"],
            "model.num_layers: 7 layers, embedding and head do not fill 4 stages evenly",
        ),
        (
            ["model.num_key_value_heads=3"],
            "model.num_key_value_heads: 3 does not divide num_attention_heads 4",
        ),
        (["model.num_key_value_heads=8"], "model.num_key_value_heads: 8 does not divide num_attention_heads 4"),
        (["model.head_dim=15"], "model.head_dim: 15 is not a multiple of 2 (positions: rope turns pairs)"),
        (
            ["model.head_dim=18", "model.positions=rope_2d"],
            "model.head_dim: 18 is not a multiple of 4 (positions: rope_2d turns pairs in each half of a head)",
        ),
        (
            ["model.hidden_size=72", "model.positions=rope_2d"],
            "model.hidden_size: 72 over 4 heads is 18 a head, not a multiple of 4 (positions: rope_2d turns pairs in",
        ),
        (["model.parallel_block=true"], "model.parallel_block: true has one norm before attention and FFN"),
        (["model.initial_std=0.02"], "model.initial_std: 0.02 would replace the gains that norm_placement: deepnorm"),
        (["model.positions=learned"], "model.max_positions: null is too few rows for positions: learned"),
        (
            ["model.positions=learned_2d", "model.max_positions=255"],
            "model.max_positions: 255 is too few rows for positions: learned_2d at data.sequence_length 256; write 256",
        ),
        (["model.max_positions=256"], "model.max_positions: 256 has no meaning with positions: rope"),
        (
            ["model.positions=alibi", "model.rotary_table=fp16"],
            "model.rotary_table: fp16 has no meaning with positions:",
        ),
        (["kernels.attention=varlen"], "kernels.attention: varlen computes in fp16 and bf16"),
        (["kernels.attention=flash_attn"], "kernels.attention: flash_attn computes in fp16 and bf16"),
        (
            ["kernels.attention=flash_attn", "precision.dtype=bf16", "model.positions=alibi"],
            "kernels.attention: flash_attn has no ALiBi by position, model.positions is alibi; write auto or sdpa",
        ),
        (
            ["kernels.attention=varlen", "precision.dtype=bf16", "model.attention_dropout=0.1"],
            "kernels.attention: varlen has no dropout, model.attention_dropout is 0.1",
        ),
        (
            ["kernels.attention=varlen", "precision.dtype=bf16", "model.head_dim=20"],
            "kernels.attention: varlen has heads of a multiple of 8, these are 20 wide",
        ),
        (
            ["kernels.attention=flash_attn", "precision.dtype=bf16", "model.head_dim=264"],
            "kernels.attention: flash_attn has heads up to 256 wide, these are 264",
        ),
        (
            ["model.num_attention_heads=12", "model.hidden_size=96", "model.num_key_value_heads=3"],
            "model.num_key_value_heads: 3 is neither a multiple nor a divisor of 2 (parallel.tensor)",
        ),
        (
            ["model.positions=alibi", "model.head_dim=3", "parallel.tensor=4", "model.num_key_value_heads=1"],
            "model.num_key_value_heads: 1 and 4 query heads of 3 make 18 rows, not a multiple of 4 (parallel.tensor)",
        ),
        (
            ["parallel.sequence_parallel=true", "data.sequence_length=255"],
            "data.sequence_length: 255 is not a multiple of 2 (parallel.tensor, with sequence_parallel)",
        ),
        (
            ["parallel.virtual_stages=2", "parallel.pipeline=1"],
            "parallel.virtual_stages: 2 chunks a stage take turns with those of other stages",
        ),
        (
            ["parallel.virtual_stages=2", "model.num_layers=6"],
            "model.num_layers: 6 is not a multiple of 4 (parallel.pipeline x virtual_stages); write for example 4 or 8",
        ),
        (
            ["data.text.english.weight=1e-9"],
            "data.text.english.weight: 1e-09 is less than 1e-07 of all weights, and a source that is drawn so seldom",
        ),
        (["objective.smask_share=-0.1"], "objective.smask_share: "),
        (
            ["objective.mask_share=0.7", "objective.smask_share=0.4"],
            "objective.smask_share: comes to 1.1 together with objective.mask_share",
        ),
        (
            [
                "objective.mask_share={start: 0.2, end: 0.8, over_samples: 40}",
                "objective.smask_share={start: 0.4, end: 0.1, from_samples: 20, over_samples: 80}",
            ],
            "objective.smask_share: comes to 1.125 together",
        ),
        (
            ["data.skip_steps=[{from_step: 5, steps: 2}, {from_step: 7, steps: 1}]"],
            "data.skip_steps: the range from step 7 does not lie behind the one from step 5",
        ),
        (
            ["interventions=[{from_samples: 90}, {from_samples: 80}]"],
            "interventions: the one from sample 80 follows that from sample 90; write them in rising order",
        ),
        (
            ["interventions=[{from_samples: 90, skip: {from_step: 5, steps: 2}}]"],
            "interventions.0.skip: is the stability guard's; write the range under data.skip_steps",
        ),
        (["stability.window_steps=31"], "stability.quiet_steps: 32 never stand in a window of window_steps 31"),
        (
            ["stability.quiet_steps=8", "stability.loss.in_a_row=9"],
            "stability.loss.in_a_row: 9 spikes are more than quiet_steps 8, which are a new level; write at most 8",
        ),
        (["stability.loss.actions=[warn, warn]"], "stability.loss.actions: warn, warn has one twice"),
        (
            ["stability.overflow.actions=[stop, shrink_alpha, rewind, skip_update]"],
            "stability.overflow.actions: a run that stops does not rewind or shrink_alpha; leave out stop",
        ),
        (
            [
                "stability.loss.actions=[shrink_alpha]",
                "model.embedding_gradient_shrink={alpha: 1, input_side: false, logit_side: false}",
            ],
            "stability.loss.actions: shrink_alpha changes nothing without a side to shrink; set model.embedding_grad",
        ),
        (
            ["stability.gradient_norm.actions=[rewind]", "stability.rewind={margin_steps: 4, skip_before_steps: 5}"],
            "stability.rewind.skip_before_steps: 5 reaches behind a checkpoint that is only margin_steps 4 older",
        ),
        (
            ["stability.loss.actions=[rewind]", "checkpoint={every_steps: 6, keep_last: 2}"],
            "checkpoint.keep_last: 2 checkpoints, 6 steps apart, need not reach the 12 steps back that stability.loss",
        ),
        (
            ["objective.mask.text_tokens=63"],
            "objective.mask.text_tokens: 63 leave no room for a target in the 64 tokens of a sample; write at most 62",
        ),
        (
            ["parallel.virtual_stages=2", UNEVEN, "model.num_layers=2"],
            "model.num_layers: 2 layers, embedding and head do not fill 2 stages x 2 virtual stages evenly",
        ),
        (
            ["parallel.virtual_stages=2", "batch.global_size=20", "batch.ramp=null"],
            "batch.global_size: 20 is not a multiple of 8 (batch.micro_size 2 x data-parallel size 2 x pipeline 2",
        ),
        (["parallel.virtual_stages=2", "batch.ramp.start=4"], "batch.ramp.start: 4 is not a multiple of 8"),
        (["parallel.virtual_stages=2"], "batch.ramp.increment: 4 is not a multiple of 8"),
        (["parallel.virtual_stages=2", "evaluation.samples=60"], "evaluation.samples: 60 is not a multiple of 8"),
        (["parallel.zero_stage=-1"], "parallel.zero_stage: -1 is no stage of ZeRO; write zero_stage: 1, or 2 with"),
        (["parallel.zero_stage=0"], "parallel.zero_stage: 0 clips by a wrong gradient norm"),
        (["parallel.zero_stage=3"], "parallel.zero_stage: 3 takes the weights away from the pipeline's schedule"),
        (["parallel.zero_stage=3", "parallel.pipeline=1"], "parallel.zero_stage: 3 takes the weights away"),
        (["parallel.zero_stage=7", "parallel.pipeline=1"], "parallel.zero_stage: 7 takes the weights away"),
        (["parallel.zero_stage=2"], "parallel.zero_stage: 2 shards gradients, which 2 pipeline stages still add to"),
        (
            ["parallel.zero_stage=2", "parallel.pipeline=1", "parallel.tensor=2", "parallel.sequence_parallel=true"],
            "parallel.zero_stage: 2 shards gradients as they come, and those of the norms",
        ),
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
        ["parallel.pipeline=1", "parallel.zero_stage=2", "parallel.tensor=1", "parallel.sequence_parallel=true"],
        ["parallel.pipeline=1", "model.num_layers=5", UNEVEN],
        ["parallel.pipeline=4", "model.num_layers=6", UNEVEN],
        ["model.num_key_value_heads=1"],
        ["model.num_key_value_heads=1", "parallel.tensor=4"],
        ["model.num_key_value_heads=4"],
        ["model.hidden_size=66", "model.head_dim=16"],
        ["model.hidden_size=60", "model.positions=alibi"],
        ["model.head_dim=12", "model.positions=rope_2d"],
        ["model.parallel_block=true", "model.norm_placement=pre", "model.initial_std=0.02"],
        ["model.positions=learned", "model.max_positions=256"],
        ["model.positions=learned_2d", "model.max_positions=300"],
        ["model.positions=rope_2d", "model.rotary_table=fp16"],
        ["kernels.attention=varlen", "precision.dtype=bf16"],
        ["kernels.attention=flash_attn", "precision.dtype=fp16", "model.attention_dropout=0.1"],
        ["kernels.attention=sdpa", "model.positions=alibi", "model.attention_dropout=0.1"],
        ["parallel.sequence_parallel=true"],
        ["parallel.sequence_parallel=true", "parallel.tensor=1"],
        ["parallel.virtual_stages=2", "batch.ramp.increment=8"],
        [UNEVEN, "parallel.virtual_stages=3", "model.num_layers=10", "batch.ramp=null", "evaluation.samples=16"],
        ["parallel.offload_optimizer=true"],
        ["objective.instruction_share=0", "data.instructions={}"],
        ["objective.instruction_share=1", "data.text={}"],
        ["optimizer.learning_rate.warmup_samples=3200"],
        ["optimizer.learning_rate.minimum=2e-3"],
        ["model.embedding_gradient_shrink.alpha={start: 1, end: 0.1, over_samples: 100}"],
        ["data.text.code.weight=0"],
        ["interventions=[{from_samples: 90}, {from_samples: 90}]"],
        ["stability.window_steps=32"],
        ["stability.loss.actions=[]"],
        ["stability.loss.actions=[stop, skip_update, warn]"],
        ["stability.loss={in_a_row: 32, actions: [skip_update, rewarm]}"],
        ["stability.loss.actions=[rewind, shrink_alpha, lower_learning_rate, rewarm, skip_update]"],
        ["stability.loss.actions=[rewind]", "checkpoint={every_steps: 6, keep_last: 3}"],
        ["stability.loss.actions=[rewind]", "checkpoint={every_steps: 1, keep_last: null}"],
        ["stability.rewind={margin_steps: 4, skip_before_steps: 5}"],
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


@pytest.mark.parametrize(
    ("overrides", "key", "mend"),
    [
        ([UNEVEN, "parallel.pipeline=8", "parallel.data=1", "model.num_layers=69"], "model.num_layers", "62 or 70"),
        ([UNEVEN, "parallel.pipeline=4", "model.num_layers=2"], "model.num_layers", "6"),
        ([UNEVEN, "parallel.virtual_stages=2", "batch.ramp=null", "model.num_layers=2"], "model.num_layers", "6"),
        (["parallel.virtual_stages=2", "batch.ramp=null", "model.num_layers=5"], "model.num_layers", "4 or 8"),
        (["batch.ramp.start=4", "batch.ramp.increment=8"], "batch.ramp.increment", "4"),
        (["model.num_key_value_heads=3"], "model.num_key_value_heads", "2"),
        (["model.num_key_value_heads=8"], "model.num_key_value_heads", "4"),
        (
            ["model.num_attention_heads=12", "model.hidden_size=96", "model.num_key_value_heads=3"],
            "model.num_key_value_heads",
            "2",
        ),
        (
            ["model.positions=alibi", "model.head_dim=3", "parallel.tensor=4", "model.num_key_value_heads=1"],
            "model.num_key_value_heads",
            "4",
        ),
        (["model.positions=rope_2d", "model.hidden_size=72"], "model.hidden_size", "80"),
        (["model.positions=rope_2d", "model.head_dim=18"], "model.head_dim", "16 or 20"),
        (["model.positions=learned", "model.max_positions=8"], "model.max_positions", "256 or more"),
        (["stability.window_steps=31"], "stability.quiet_steps", "at most 31"),
        (
            ["stability.loss.actions=[rewind]", "checkpoint={every_steps: 6, keep_last: 2}"],
            "checkpoint.keep_last",
            "3 or more, or null",
        ),
    ],
)
def test_the_suggested_mend_is_right(overrides: list[str], key: str, mend: str) -> None:
    (problem,) = broken(*overrides)
    assert problem.startswith(f"{key}: ")
    assert re.search(r"; write (for example )?(.*)$", problem)[2] == mend  # type: ignore[index]
    for value in mend.removeprefix("at most ").removesuffix(", or null").removesuffix(" or more").split(" or "):
        load_config(TINY, [*overrides, f"{key}={value}"])


def test_a_model_cut_for_its_embedding_and_head_is_told_the_switch() -> None:
    layout = ["parallel.pipeline=8", "parallel.data=1"]
    (problem,) = broken(*layout, "model.num_layers=70")
    switch = "parallel.embedding_and_head_count_as_layers: true"
    assert problem == (
        f"model.num_layers: 70 is not a multiple of 8 (parallel.pipeline); write for example 64 or 72, or {switch}"
    )
    load_config(TINY, [*layout, "model.num_layers=70", UNEVEN])
    for layers in (69, 6):  # one too few, and too few for two on each stage
        assert not any(switch in problem for problem in broken(*layout, f"model.num_layers={layers}"))


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
