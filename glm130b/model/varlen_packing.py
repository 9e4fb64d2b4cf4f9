"""Where the tokens of a micro-batch go for variable-length attention, which wants sequences laid end to end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Tokens = Tensor | slice
"""Numbers of tokens, int64: ``s * B + b`` in a batch [S, B]. A slice where they follow each other."""


@dataclass(frozen=True)
class VarlenCall:
    """One attention call over many sequences. Sequence ``i`` has the packed queries from ``cu_query[i]`` to
    ``cu_query[i + 1]``; its keys likewise."""

    causal: bool
    """A query sees the keys up to its own, queries and keys aligned at their ends; else it sees all of them."""
    num_queries: int
    keys: Tokens
    """In the order of the packed keys."""
    cu_query: Tensor
    cu_key: Tensor
    """int32, [sequences + 1]."""
    max_query: int
    max_key: int


@dataclass(frozen=True)
class VarlenPacking:
    """GLM's two calls over all segments of a micro-batch: contexts that see themselves, then targets that see their
    segment up to themselves. A call without queries is left out."""

    calls: tuple[VarlenCall, ...]
    queries: Tokens
    """In the order of the packed queries, those of all calls one after the other."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[tuple[int, int, int]]], device: torch.device) -> "VarlenPacking":
        """``rows[b]`` lists (start, context length, target length). Made on the CPU, sent in one copy that nobody waits
        for."""
        contexts, targets, segments = [], [], []
        for b, row in enumerate(rows):
            for start, context, target in row:
                tokens = np.arange(start, start + context + target) * len(rows) + b
                if context:
                    contexts.append(tokens[:context])
                if target:
                    targets.append(tokens[context:])
                    segments.append(tokens)
        plan = [
            (causal, queries, keys)
            for causal, queries, keys in ((False, contexts, contexts), (True, targets, segments))
            if queries
        ]
        if not plan:
            return cls(calls=(), queries=slice(0, 0))
        orders = [np.concatenate(order) for order in (contexts + targets, *(keys for _, _, keys in plan))]
        bounds = [_bounds(sequences) for _, *both in plan for sequences in both]
        sent = _send(orders + bounds, device)
        tokens_sent = [_as_slice(order) or tensor for order, tensor in zip(orders, sent, strict=False)]
        cu = [tensor.int() for tensor in sent[len(orders) :]]
        calls = tuple(
            VarlenCall(
                causal=causal,
                num_queries=sum(map(len, queries)),
                keys=tokens_sent[1 + i],
                cu_query=cu[2 * i],
                cu_key=cu[2 * i + 1],
                max_query=max(map(len, queries)),
                max_key=max(map(len, keys)),
            )
            for i, (causal, queries, keys) in enumerate(plan)
        )
        return cls(calls=calls, queries=tokens_sent[0])


def _bounds(sequences: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, sequences)])


def _as_slice(order: NDArray[np.int64]) -> slice | None:
    return slice(int(order[0]), int(order[-1]) + 1) if (np.diff(order) == 1).all() else None


def _send(arrays: Sequence[NDArray[np.int64]], device: torch.device) -> tuple[Tensor, ...]:
    joined = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        joined = joined.pin_memory()
    return joined.to(device, non_blocking=True).split([len(array) for array in arrays])
