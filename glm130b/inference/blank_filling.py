"""Fill the blanks of a text: [MASK] and [sMASK] inside it, [gMASK] at its end (GLM-130B paper, section 2.2).

Blanks are filled left to right, one at a time; each sees the whole text, later blanks still open. Every token runs the
whole model over the whole text: right for trying a model out, not for serving one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig
from glm130b.inference.loading import TrainedModel
from glm130b.inference.sampling import Sampling, next_token
from glm130b.model.segments import PackedSegments


@dataclass(frozen=True)
class Filling:
    """A text with its blanks filled, and what went into each."""

    text: str
    blanks: tuple[str, ...]


def fill_blanks(
    trained: TrainedModel,
    prompt: str,
    *,
    max_tokens: int = 48,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen, so one shared default is safe
) -> Filling:
    """Fill every blank of ``prompt``; a prompt without one is continued.

    Each blank gets one token at least and ``max_tokens`` at most; it ends earlier where the model says <eop> or <eod>.
    Raises UserError when the text may outgrow the model's learned positions.
    """
    special = trained.tokenizer.special
    blanks = (special.mask, special.smask, special.gmask)
    tokens = trained.tokenizer.encode_with_blanks(prompt)
    if _first_blank(tokens, blanks) is None:
        tokens.append(special.gmask)
    _check_room(trained.model.model, len(tokens), num_blanks=sum(token in blanks for token in tokens), each=max_tokens)
    generator, filled = sampling.generator(), []
    while (index := _first_blank(tokens, blanks)) is not None:
        answer = _fill_one(trained, tokens, index, max_tokens, sampling, generator)
        filled.append(trained.tokenizer.decode(answer))
        tokens = tokens[:index] + answer + tokens[index + 1 :]
    return Filling(trained.tokenizer.decode(tokens), tuple(filled))


def _check_room(model: ModelConfig, num_tokens: int, *, num_blanks: int, each: int) -> None:
    longest = num_tokens + num_blanks * each + 1
    if model.max_positions is not None and longest > model.max_positions:
        raise UserError(
            f"--prompt: {num_tokens} tokens and {num_blanks} x --max-tokens {each} for its blanks are up to {longest}, "
            f"and the model has learned {model.max_positions} positions; give a shorter prompt or fewer --max-tokens"
        )


def _first_blank(tokens: list[int], blanks: tuple[int, ...]) -> int | None:
    return next((index for index, token in enumerate(tokens) if token in blanks), None)


@torch.no_grad()
def _fill_one(
    trained: TrainedModel,
    context: list[int],
    blank: int,
    max_tokens: int,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[int]:
    """Tokens for the blank at index ``blank`` of ``context``, without the closing <eop> or <eod>."""
    special, model = trained.tokenizer.special, trained.model.model
    is_continuation = context[blank] == special.gmask
    # A continuation counts on, but not where block positions count; the tokens of a blank all stand where it stands.
    counts_on = is_continuation and not model.has_block_positions
    given: list[int] = []
    if is_continuation and model.attention == "causal":
        # Such a model has learned to read text as the target of a [gMASK] with nothing before it.
        context, given, blank = context[blank:], context[:blank], 0
    forbidden_first, forbidden_later = _forbidden(trained)
    answer: list[int] = []
    while len(answer) < max_tokens:
        target = [special.sop, *given, *answer]
        positions = [*range(len(context)), *(len(context) + i if counts_on else blank for i in range(len(target)))]
        block_positions = [*[0] * len(context), *range(1, len(target) + 1)]
        logits_BSV = trained.model(
            torch.tensor([context + target], device=trained.device),
            torch.tensor([[positions, block_positions]], device=trained.device),
            PackedSegments([[(0, len(context), len(target))]]),
        )
        logits_V = logits_BSV[0, -1]
        logits_V[forbidden_later if answer else forbidden_first] = -torch.inf
        token = next_token(logits_V, sampling, generator)
        if token in (special.eop, special.eod):
            break
        answer.append(token)
    return answer


def _forbidden(trained: TrainedModel) -> tuple[Tensor, Tensor]:
    """Ids that may not open an answer: the special tokens, and the rows of the embedding that stand for nothing. And
    that may not follow: all of them but an answer's ends."""
    special = trained.tokenizer.special
    nothing = range(trained.tokenizer.vocab_size, trained.model.model.vocab_size)
    ids = torch.tensor([*special.names(), *nothing], device=trained.device)
    return ids, ids[(ids != special.eop) & (ids != special.eod)]
