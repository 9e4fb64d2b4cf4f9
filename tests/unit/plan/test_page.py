"""The plan of every preset, and its numbers for the original run."""

from pathlib import Path

import pytest

from glm130b.config.load import load_config
from glm130b.plan.page import page

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = Path(__file__).parents[1] / "run.yaml"
PRESETS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("families/*.yaml")])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_fits_80_columns(preset: Path) -> None:
    lines = page(load_config(preset)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)


def test_glm_130b() -> None:
    text = page(load_config(CONFIGS / "glm-130b.yaml"))
    for expected in (
        "128,697,794,560 parameters",
        "tensor 4 x pipeline 8 x data 24 = 768 processes",
        "0-7 (8)",
        "8-16 (9)",
        "62-69 (8)",
        "672-675       ...   764-767",
        "the largest process holds 4,087,119,872 parameters",
        "full   4,224 rows, 8,650,752 tokens, 176 micro-batches, 3.8% bubble",
        "1,101 in all, 1.544 TB each\n  kept: the 12 newest, those of every 5,000 steps, one more while",
    ):
        assert expected in text


def test_what_is_cut_and_shared_is_shown() -> None:
    layout = ["parallel.virtual_stages=2", "parallel.sequence_parallel=true", "parallel.offload_optimizer=true"]
    model = ["model.num_key_value_heads=2", "model.norm_placement=pre", "model.parallel_block=true", "model.ffn=swiglu"]
    batch = ["batch.ramp=null", "model.tie_embedding=false", "parallel.recompute=selective"]
    text = page(load_config(RUN, [*layout, *model, *batch]))
    for expected in (
        "prefix attention, positions rope, heads of 16, 2 of key and value",
        "parallel block, pre layernorm, swiglu, untied embedding",
        "ZeRO stage 1, optimizer on the CPU, sequence parallel, recompute selective",
        "2 chunks of layers on each stage, its first is shown",
        "  1     1 (2) ",
        "full   16 rows, 4,096 tokens, 4 micro-batches, 11.1% bubble",
    ):
        assert expected in text


def test_milestones_in_steps_and_samples_in_their_order() -> None:
    ramps = [
        "model.embedding_gradient_shrink.alpha={start: 1, end: 0.1, over_samples: 200}",
        "data.text.code.weight={start: 0.1, end: 1, from_samples: 50, over_samples: 30}",
    ]
    text = page(load_config(RUN, ramps))
    rows = [line.rsplit(maxsplit=2) for line in text.split("Milestones")[1].split("\n\n")[0].splitlines()[1:]]
    assert [[name.strip(), step, samples] for name, step, samples in rows] == [
        ["weight of text code ramp ends", "10", "80"],
        ["warm-up ends", "17", "160"],
        ["batch is full", "17", "160"],
        ["gradient shrink ramp ends", "20", "200"],
        ["learning rate is at its minimum", "207", "3,200"],
        ["run ends", "207", "3,200"],
    ]


def test_what_a_short_run_never_reaches() -> None:
    text = page(load_config(RUN, ["train_samples=150"]))
    rows = [line.rsplit(maxsplit=2) for line in text.split("Milestones")[1].split("\n\n")[0].splitlines()[1:]]
    assert [[name.strip(), step] for name, step, _ in rows] == [
        ["run ends", "16"],
        ["warm-up ends", "never"],
        ["batch is full", "never"],
        ["learning rate is at its minimum", "never"],
    ]


@pytest.mark.parametrize(
    ("checkpoint", "kept"),
    [
        ("keep_last: 5", "the 5 newest, one more while it is written"),
        (
            "keep_last: 1, keep_every_steps: 2000",
            "the newest, those of every 2,000 steps, one more while it is written",
        ),
        ("keep_last: null, keep_every_steps: 50", "all"),
    ],
)
def test_which_checkpoints_stay(checkpoint: str, kept: str) -> None:
    assert f"\n  kept: {kept}\n" in page(load_config(RUN, [f"checkpoint={{every_steps: 10, {checkpoint}}}"]))


def test_every_rule_of_the_guard() -> None:
    rules = [
        "stability.loss={in_a_row: 2, actions: [rewind, lower_learning_rate]}",
        "stability.gradient_norm.actions=[]",
    ]
    block = page(load_config(RUN, rules)).split("Stability")[1].splitlines()[1:]
    assert [line.split(maxsplit=2) for line in block] == [
        ["loss", "2", "rewind, lower_learning_rate"],
        ["gradient_norm", "1", "none"],
        ["embedding_gradient_norm", "1", "warn"],
        ["not_finite", "10", "stop"],
        ["overflow", "20", "stop"],
        ["minimum_scale", "10", "stop"],
    ]


def test_an_open_data_size_shows_one_replica_and_says_so() -> None:
    config = load_config(RUN, ["parallel.data=null"])
    assert "parallel.data is open: this is one replica" in page(config)
    whole = page(config, world_size=8)
    assert "parallel.data is open" not in whole
    assert whole == page(load_config(RUN))


def test_the_middle_of_a_long_pipeline_is_left_out() -> None:
    overrides = ["model.num_layers=64", "parallel.pipeline=32"]
    lines = page(load_config(RUN, overrides)).splitlines()
    stages = [line.split()[0] for line in lines if line.endswith(("1", "3", "5", "7", "9")) and "(2)" in line]
    assert stages == [*map(str, range(8)), *map(str, range(24, 32))]
    assert "  ..." in lines
