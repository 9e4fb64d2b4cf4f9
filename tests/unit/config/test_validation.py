"""Every mistake in a value or a key is one sentence that names the key, the value, the rule and the mend."""

from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.config.validation import validated
from glm130b.config.yaml_dialect import parse

TINY = Path(__file__).parents[1] / "run.yaml"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.num_layers=four", 'model.num_layers: "four" is not a whole number; write for example 4'),
        ("checkpoint.keep_last=all", 'checkpoint.keep_last: "all" is not a whole number; write for example 4, or null'),
        (
            "optimizer.learning_rate.warmup_samples=0.01",
            ("optimizer.learning_rate.warmup_samples: 0.01 is not a whole number; write rows, for example 100_000"),
        ),
        ("model.num_layers=4.0", "model.num_layers: 4.0 is not a whole number; write 4"),
        ("train_samples=1e6", "train_samples: 1000000.0 is not a whole number; write 1000000"),
        ("seed=true", "seed: true is not a whole number; write for example 4"),
        ("seed=-1", "seed: -1 is too small; write 0 or more"),
        ("model.num_layers=", "model.num_layers: null is not a whole number; write for example 4"),
        ("optimizer.beta1=x", 'optimizer.beta1: "x" is not a number; write for example 0.5'),
        ("optimizer.beta1=.nan", "optimizer.beta1: NaN is not finite; write for example 0.5"),
        ("model.hidden_dropout=1", "model.hidden_dropout: 1 is too large; write a number below 1"),
        ("objective.mask.coverage=.6", "objective.mask.coverage: 0.6 is too large; write 0.5 or less"),
        ("optimizer.epsilon=0", "optimizer.epsilon: 0 is too small; write a number above 0"),
        (
            "objective.gmask.end_of_piece=1",
            "objective.gmask.end_of_piece: 1 is neither true nor false; write one of them",
        ),
        ("precision.dtype=fp8", "precision.dtype: \"fp8\" is not a choice; write 'fp32', 'bf16' or 'fp16'"),
        (
            "kernels.attention=flash",
            "kernels.attention: \"flash\" is not a choice; write 'auto', 'sdpa', 'varlen' or 'flash_attn'",
        ),
        ("model.head_dim=0", "model.head_dim: 0 is too small; write 1 or more, or null"),
        ("folder=3", "folder: 3 is not text; put it in quotes if it is meant as a name"),
        ("name=a b", "name: \"a b\" is no name; write letters, digits, '.', '_' or '-', a letter or digit first"),
        ("batch=3", "batch: 3 is not a section; write micro_size, global_size, ramp under the key"),
        (
            "data.text.code=[1]",
            "data.text.code: [1] is not a section; write path, weight, held_out_share under the key",
        ),
        ("data.text=3", "data.text: 3 is not a section; write one `name: {...}` line for each entry under the key"),
        (
            "objective.mask_share=most",
            (
                'objective.mask_share: "most" is not a number; '
                "write one, or {start: ..., end: ..., from_samples: ..., over_samples: ...}"
            ),
        ),
        ("modle.num_layers=4", "modle: unknown key; the nearest is model"),
        ("model.num_layer=4", "model.num_layer: unknown key; the nearest is model.num_layers"),
        ("data.text.code.wieght=1", "data.text.code.wieght: unknown key; the nearest is data.text.code.weight"),
        ("model.learning_rate=1", "model.learning_rate: unknown key; write it as optimizer.learning_rate"),
        ("weight=1", "weight: unknown key; write it as data.text.<name>.weight or data.instructions.<name>.weight"),
        ("evaluation.xyz=1", "evaluation.xyz: unknown key; the keys there are every_steps, samples"),
        (
            "checkpoint={}",
            "checkpoint.every_steps: missing; add a value (Steps between checkpoints; one more is saved at the end)",
        ),
        (
            "precision={}",
            (
                "precision.dtype: missing; add 'fp32' or 'bf16' or 'fp16' "
                "(bf16 where the accelerator has it; fp16 scales the loss; fp32 for a CPU and for comparisons)"
            ),
        ),
        (
            "batch={global_size: 16}",
            "batch.micro_size: missing; add a value (Rows in one micro-batch of one data-parallel rank)",
        ),
        ("interventions=3", "interventions: 3 is not a list; write it as [..., ...]"),
        (
            "interventions=[{}]",
            (
                "interventions.0.from_samples: missing; "
                "add a value (First sample it holds for: a step that begins before it is left alone)"
            ),
        ),
        (
            "interventions=[{from_samples: 9, skip: 3}]",
            "interventions.0.skip: 3 is not a section; write from_step, steps under the key",
        ),
        (
            "data.text.code.weight={end: 1}",
            "data.text.code.weight.start: missing; add a value (Value up to and including `from_samples`)",
        ),
    ],
)
def test_a_mistake_names_key_value_rule_and_mend(override: str, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(TINY, [override])
    assert caught.value.problems == (problem,)


def test_a_misspelt_key_is_not_also_missing() -> None:
    tree = parse(TINY.read_text(encoding="utf-8").replace("num_layers", "num_layer"), origin="tiny")
    with pytest.raises(UserError) as caught:
        validated(tree)
    assert caught.value.problems == ("model.num_layer: unknown key; the nearest is model.num_layers",)


def test_whole_numbers_stand_for_numbers() -> None:
    assert load_config(TINY, ["optimizer.weight_decay=1"]).optimizer.weight_decay == 1.0


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("parallel.tp", "parallel.tensor"),
        ("parallel.pp", "parallel.pipeline"),
        ("parallel.sp", "parallel.sequence_parallel"),
        ("model.heads", "model.num_attention_heads"),
    ],
)
def test_short_words_of_the_field_lead_to_their_key(key: str, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(TINY, [f"{key}=1"])
    assert f"{key}: unknown key; the nearest is {nearest}" in caught.value.problems
