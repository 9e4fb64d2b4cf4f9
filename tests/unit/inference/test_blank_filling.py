"""Blanks filled by a real model: positions, order, ends, and what may never be said."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.environment import Launch
from glm130b.inference.blank_filling import Filling, fill_blanks
from glm130b.inference.loading import TrainedModel, load_run
from glm130b.inference.sampling import Sampling
from glm130b.model.segments import PackedSegments
from tests.harness.plain_infilling import gmask_sample, mask_sample
from tests.harness.pool import run_distributed
from tests.harness.synthetic import small_config
from tests.unit.inference.conftest import SavedRun

DRAWN = Sampling(temperature=5.0, seed=3)  # nearly every token, so that what is forbidden would show


class Call(NamedTuple):
    """One run of the model."""

    tokens: list[int]
    positions: list[int]
    block_positions: list[int]
    segment: tuple[int, int, int]


def observed(launch: Launch, run: Path, prompt: str, options: dict[str, Any]) -> tuple[Filling, list[Call]]:
    """A filling by the saved run's model, and every call of the model on the way."""
    trained = load_run(run)
    calls = []

    def observe(model: torch.nn.Module, inputs: tuple[Tensor, Tensor, PackedSegments]) -> None:
        tokens_BS, positions_B2S, segments = inputs
        calls.append(Call(tokens_BS[0].tolist(), *positions_B2S[0].tolist(), segments.rows[0][0]))

    trained.model.register_forward_pre_hook(observe)
    return fill_blanks(trained, prompt, **options), calls


def fill(saved_run: SavedRun, prompt: str, **options: Any) -> tuple[Filling, list[Call]]:
    return run_distributed(observed, 1, saved_run.folder, prompt, options)[0]


class Scripted:
    """A model that likes best, call by call, what its script says: a token and the next best."""

    def __init__(self, model: ModelConfig, script: list[list[int]]) -> None:
        self.model = model
        self.calls: list[list[int]] = []
        self.positions: list[list[list[int]]] = []
        self._script = script

    def __call__(self, tokens_BS: Tensor, positions_B2S: Tensor, segments: PackedSegments) -> Tensor:
        favourites = self._script[len(self.calls)]
        self.calls.append(tokens_BS[0].tolist())
        self.positions.append(positions_B2S[0].tolist())
        logits_BSV = torch.zeros(*tokens_BS.shape, self.model.vocab_size)
        logits_BSV[0, -1, favourites] = torch.arange(len(favourites), 0, -1).float()
        return logits_BSV


def scripted(tokenizer: Tokenizer, script: list[list[int]], **switches: Any) -> tuple[TrainedModel, Scripted]:
    """``switches`` of the model's config."""
    config = small_config().model.model_copy(update={"vocab_size": tokenizer.vocab_size + 8, **switches})
    model: Any = Scripted(config, script)
    return TrainedModel(model, tokenizer, torch.device("cpu")), model


@pytest.mark.parametrize("blank", ["[MASK]", "[sMASK]"])
def test_tokens_of_a_blank_stand_where_it_stands(saved_run: SavedRun, blank: str) -> None:
    filling, calls = fill(saved_run, f"Return the {blank} of a list.", max_tokens=3, sampling=DRAWN)
    tokenizer = saved_run.tokenizer
    context = tokenizer.encode_with_blanks(f"Return the {blank} of a list.")
    position = len(tokenizer.encode("Return the "))
    for said, call in enumerate(calls):
        assert call.tokens[: len(context)] == context
        assert call.tokens[len(context)] == tokenizer.special.sop
        assert call.positions == [*range(len(context)), *[position] * (said + 1)]
        assert call.segment == (0, len(context), said + 1)
    assert filling.text == f"Return the {filling.blanks[0]} of a list."


def test_positions_of_a_continuation_count_on(saved_run: SavedRun) -> None:
    _, calls = fill(saved_run, "Return [gMASK]", max_tokens=4, sampling=DRAWN)
    context = saved_run.tokenizer.encode_with_blanks("Return [gMASK]")
    for said, call in enumerate(calls):
        assert call.tokens[: len(context) + 1] == [*context, saved_run.tokenizer.special.sop]
        assert call.positions == list(range(len(context) + said + 1))


@pytest.mark.parametrize("blank", ["[MASK]", "[gMASK]"])
def test_the_model_sees_what_it_saw_in_training(saved_run: SavedRun, blank: str) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    _, calls = fill(saved_run, f"Return {blank}", max_tokens=4, sampling=DRAWN)
    prefix, last = tokenizer.encode("Return "), calls[-1]
    answer = last.tokens[len(prefix) + 2 :]
    text = torch.tensor([*prefix, *answer]).numpy()
    if blank == "[MASK]":
        sample = mask_sample(text, spans=[(len(prefix), len(text))], order=[0], special=special)
    else:
        sample = gmask_sample(text, prefix_length=len(prefix), special=special, end_of_piece=True)
    assert last.tokens == sample.tokens.tolist()
    assert last.positions == sample.positions.tolist()
    assert last.block_positions == sample.block_positions.tolist()
    assert last.segment == (0, sample.context_length, len(sample.tokens) - sample.context_length)


@pytest.mark.parametrize("blank", ["[MASK]", "[gMASK]"])
def test_with_block_positions_any_answer_stands_at_its_blank(saved_run: SavedRun, blank: str) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    x, y = (tokenizer.encode(letter)[0] for letter in "xy")
    trained, model = scripted(tokenizer, [[x], [y], [special.eop]], positions="rope_2d")
    fill_blanks(trained, f"a{blank}b")
    split, context = len(tokenizer.encode("a")), len(tokenizer.encode_with_blanks(f"a{blank}b"))
    for said, positions in enumerate(model.positions):
        assert positions == [
            [*range(context), *[split] * (said + 1)],
            [*[0] * context, *range(1, said + 2)],
        ]


def test_a_causal_model_continues_a_text_as_it_read_it_in_training(saved_run: SavedRun) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    x, y = (tokenizer.encode(letter)[0] for letter in "xy")
    trained, model = scripted(tokenizer, [[x], [y], [special.eop]], attention="causal")
    assert fill_blanks(trained, "ab").text == "abxy"
    text = torch.tensor([*tokenizer.encode("ab"), x, y]).numpy()
    sample = gmask_sample(text, prefix_length=0, special=special, end_of_piece=True)
    assert model.calls[-1] == sample.tokens.tolist()
    assert model.positions[-1][0] == sample.positions.tolist()


def test_a_text_that_may_outgrow_learned_positions_is_refused(saved_run: SavedRun) -> None:
    tokenizer = saved_run.tokenizer
    used = len(tokenizer.encode_with_blanks("a[MASK]b[MASK]")) + 2 * 3 + 1
    trained, _ = scripted(tokenizer, [[tokenizer.special.eop]] * 9, positions="learned", max_positions=used - 1)
    with pytest.raises(UserError, match=rf"--prompt: \d+ tokens and 2 x --max-tokens 3 .* up to {used}, .* {used - 1}"):
        fill_blanks(trained, "a[MASK]b[MASK]", max_tokens=3)


def test_blanks_are_filled_left_to_right_and_later_ones_stay_open(saved_run: SavedRun) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    x, y, z = (tokenizer.encode(letter)[0] for letter in "xyz")
    script = [[x], [special.eop], [y], [y], [special.eop], [z], [special.eod]]
    trained, model = scripted(tokenizer, script)
    filling = fill_blanks(trained, "a[MASK]b[sMASK]c[gMASK]")
    assert filling == Filling("axbyycz", ("x", "yy", "z"))
    a, b, c = (tokenizer.encode(letter) for letter in "abc")
    contexts = [
        [*a, special.mask, *b, special.smask, *c, special.gmask, special.sop],
        [*a, x, *b, special.smask, *c, special.gmask, special.sop],
        [*a, x, *b, y, y, *c, special.gmask, special.sop],
    ]
    assert [model.calls[first] for first in (0, 2, 5)] == contexts
    assert len(model.calls) == len(script)


def test_a_text_without_a_blank_is_continued(saved_run: SavedRun) -> None:
    options = {"max_tokens": 5, "sampling": DRAWN}
    plain, plain_calls = fill(saved_run, "Return the list", **options)
    assert (plain, plain_calls) == fill(saved_run, "Return the list[gMASK]", **options)
    assert plain.text == "Return the list" + plain.blanks[0]


def test_an_answer_has_at_most_max_tokens(saved_run: SavedRun) -> None:
    tokenizer = saved_run.tokenizer
    x = tokenizer.encode("x")[0]
    for max_tokens in (1, 3):
        trained, model = scripted(tokenizer, [[x]] * 10)
        assert fill_blanks(trained, "[MASK] [MASK]", max_tokens=max_tokens).blanks == ("x" * max_tokens,) * 2
        assert len(model.calls) == 2 * max_tokens


def test_an_answer_has_at_least_one_token(saved_run: SavedRun) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    x, y = (tokenizer.encode(letter)[0] for letter in "xy")
    trained, _ = scripted(tokenizer, [[special.eop, special.eod, x], [y], [special.eop, x]])
    assert fill_blanks(trained, "[MASK]").blanks == ("xy",)


def test_structure_and_padding_are_never_said(saved_run: SavedRun) -> None:
    tokenizer, special = saved_run.tokenizer, saved_run.tokenizer.special
    x = tokenizer.encode("x")[0]
    structure = [special.mask, special.gmask, special.smask, special.sop, special.enc, special.dblock]
    padding = range(tokenizer.vocab_size, tokenizer.vocab_size + 8)
    never = [*structure, *padding]
    trained, _ = scripted(tokenizer, [[*never, x], [*never, x, special.eop], [*never, special.eop, x]])
    assert fill_blanks(trained, "[gMASK]").blanks == ("xx",)


def test_greedy_is_the_default_and_a_seed_fixes_the_draws(saved_run: SavedRun) -> None:
    greedy = [fill(saved_run, "Return [MASK]", max_tokens=4, sampling=Sampling(seed=seed))[0] for seed in (0, 1)]
    assert greedy[0] == greedy[1] == fill(saved_run, "Return [MASK]", max_tokens=4)[0]
    drawn = [fill(saved_run, "Return [MASK]", max_tokens=4, sampling=replace(DRAWN, seed=s))[0] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_specials_are_where_the_tests_think(saved_run: SavedRun) -> None:
    assert saved_run.tokenizer.special == SpecialTokens.after(saved_run.tokenizer.num_pieces)
