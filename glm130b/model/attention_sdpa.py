"""GLM's attention by PyTorch's own, segment by segment: on every device, in every dtype, with every option."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from glm130b.model.alibi import alibi_bias
from glm130b.model.segments import PackedSegments


def attend_with_sdpa(
    query_SBND: Tensor,
    key_SBGD: Tensor,
    value_SBGD: Tensor,
    segments: PackedSegments,
    *,
    scale: float,
    dropout: float,
    slopes_N: Tensor | None,
) -> Tensor:
    """Mixed values [S, B, N * D]; padding gives zeros.

    Each key/value head serves N / G consecutive query heads. ``slopes_N`` are the ALiBi slopes of this rank's heads;
    they need the positions of the segments.
    """
    sharing = query_SBND.shape[2] // key_SBGD.shape[2]
    if sharing > 1:  # written out, since not every backend of PyTorch's attention shares heads
        key_SBGD, value_SBGD = (x.repeat_interleave(sharing, dim=2) for x in (key_SBGD, value_SBGD))
    mixed_BSH = []
    for b, row in enumerate(segments.rows):
        positions_S = None if segments.positions_BS is None else segments.positions_BS[b]
        mixed_BSH.append(
            _attend_row(query_SBND[:, b], key_SBGD[:, b], value_SBGD[:, b], row, scale, dropout, slopes_N, positions_S)
        )
    return torch.stack(mixed_BSH, dim=1)


def _attend_row(
    query_SND: Tensor,
    key_SND: Tensor,
    value_SND: Tensor,
    segments: Sequence[tuple[int, int, int]],
    scale: float,
    dropout: float,
    slopes_N: Tensor | None,
    positions_S: Tensor | None,
) -> Tensor:
    """One row: mixed values [S, N * D]."""
    query, key, value = (x.transpose(0, 1)[None] for x in (query_SND, key_SND, value_SND))
    attend = partial(F.scaled_dot_product_attention, scale=scale, dropout_p=dropout)
    pieces, done = [], 0
    for start, context, target in segments:
        split, end = start + context, start + context + target
        pieces.append(torch.zeros_like(query[:, :, done:start]))
        if context:
            own = slice(start, split)
            mask = _bias(query, slopes_N, positions_S, own, own, causal=False)
            pieces.append(attend(query[:, :, own], key[:, :, own], value[:, :, own], attn_mask=mask))
        if target:
            own, seen = slice(split, end), slice(start, end)
            mask = _bias(query, slopes_N, positions_S, own, seen, causal=True)
            if mask is None:
                # `is_causal=True` would align the triangle top-left, which is wrong, silently, when there is a context.
                mask = causal_lower_right(target, context + target)
            pieces.append(attend(query[:, :, own], key[:, :, seen], value[:, :, seen], attn_mask=mask))
        done = end
    pieces.append(torch.zeros_like(query[:, :, done:]))
    return torch.cat(pieces, dim=2)[0].transpose(0, 1).flatten(1)


def _bias(
    query: Tensor, slopes_N: Tensor | None, positions_S: Tensor | None, own: slice, seen: slice, *, causal: bool
) -> Tensor | None:
    """ALiBi's bias [1, N, own, seen] of one call in the query's dtype, as CUDA's kernels want it."""
    if slopes_N is None:
        return None
    assert positions_S is not None
    return alibi_bias(slopes_N, positions_S[own], positions_S[seen], causal=causal).to(query.dtype)[None]
