"""Fill the blanks of a text: [MASK] and [sMASK] inside it, [gMASK] at its end (GLM-130B paper, section 2.2).

Blanks are filled left to right, one at a time; each sees the whole text, later blanks still open. Every token runs the whole model
over the whole text: right for trying a model out, not for serving one.
"""

import re
from dataclasses import dataclass

import torch

from glm130b.inference.loading import TrainedModel
from glm130b.inference.sampling import Sampling, next_token
from glm130b.model.attention import PackedSegments

_BLANK = re.compile(r"(\[MASK\]|\[sMASK\]|\[gMASK\])")


@dataclass(frozen=True)
class Filling:
    """A text with its blanks filled, and what went into each."""

    text: str
    blanks: tuple[str, ...]


def fill_blanks(trained: TrainedModel, prompt: str, *, max_tokens: int = 48, sampling: Sampling = Sampling()) -> Filling:  # noqa: B008
    """Fill every blank of ``prompt``; a prompt without one is continued.

    Each blank gets at most ``max_tokens`` tokens; it ends earlier where the model says [eop].
    """
    tokens = _tokens(trained, prompt if _BLANK.search(prompt) else prompt + "[gMASK]")
    special = trained.tokenizer.special
    generator, filled = sampling.generator(), []
    while (index := _first_blank(tokens, (special.mask, special.smask, special.gmask))) is not None:
        answer = _fill_one(trained, tokens, index, max_tokens, sampling, generator)
        filled.append(trained.tokenizer.decode(answer))
        tokens = tokens[:index] + answer + tokens[index + 1 :]
    return Filling(trained.tokenizer.decode(tokens), tuple(filled))


def _tokens(trained: TrainedModel, prompt: str) -> list[int]:
    special = trained.tokenizer.special
    ids = {"[MASK]": special.mask, "[sMASK]": special.smask, "[gMASK]": special.gmask}
    return [
        token
        for part in _BLANK.split(prompt)
        for token in ([ids[part]] if part in ids else trained.tokenizer.encode(part))
    ]


def _first_blank(tokens: list[int], blanks: tuple[int, ...]) -> int | None:
    return next((index for index, token in enumerate(tokens) if token in blanks), None)


@torch.no_grad()
def _fill_one(
    trained: TrainedModel, context: list[int], blank: int, max_tokens: int, sampling: Sampling, generator: torch.Generator
) -> list[int]:
    """Tokens for the blank at index ``blank`` of ``context``, without the closing [eop]."""
    special = trained.tokenizer.special
    is_continuation = context[blank] == special.gmask
    answer: list[int] = []
    while len(answer) < max_tokens:
        target = [special.sop, *answer]
        # A continuation counts on; the tokens of a blank all stand where the blank stands.
        positions = [len(context) + i if is_continuation else blank for i in range(len(target))]
        logits_BSV = trained.model(
            torch.tensor([context + target], device=trained.device),
            torch.tensor([list(range(len(context))) + positions], device=trained.device),
            PackedSegments([[(0, len(context), len(target))]]),
        )
        logits_V = logits_BSV[0, -1]
        # Of the ids above the tokenizer's pieces only [eop] and [eod] may be said; the rest are structure or padding.
        logits_V[special.first_id :] = torch.where(
            torch.isin(
                torch.arange(special.first_id, len(logits_V), device=trained.device),
                torch.tensor([special.eop, special.eod], device=trained.device),
            ),
            logits_V[special.first_id :],
            -torch.inf,
        )
        token = next_token(logits_V, sampling, generator)
        if token in (special.eop, special.eod):
            break
        answer.append(token)
    return answer
