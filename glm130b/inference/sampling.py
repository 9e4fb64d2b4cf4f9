"""From the logits of one position to a token."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedy at temperature 0, else drawn from the ``top_k`` most likely."""

    temperature: float = 0.0
    top_k: int = 0
    """0 draws from the whole vocabulary."""
    seed: int = 0

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def next_token(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token id for logits [V]; ids that must not come are -inf."""
    logits_V = logits_V.float().cpu()
    if sampling.temperature == 0.0:
        return int(logits_V.argmax())
    if sampling.top_k:
        floor = logits_V.topk(min(sampling.top_k, len(logits_V))).values[-1]
        logits_V = logits_V.masked_fill(logits_V < floor, -torch.inf)
    return int(torch.multinomial((logits_V / sampling.temperature).softmax(dim=-1), 1, generator=generator))
