"""The packing, worked out by hand."""

import torch

from glm130b.model.varlen_packing import VarlenPacking

CPU = torch.device("cpu")


def test_two_rows() -> None:
    """Token ``s`` of row ``b`` is number ``2 s + b``."""
    packing = VarlenPacking.of([[(0, 2, 1), (4, 0, 2)], [(1, 1, 3)]], CPU)
    context, target = packing.calls
    assert isinstance(packing.queries, torch.Tensor)
    assert packing.queries.tolist() == [0, 2, 3, 4, 8, 10, 5, 7, 9]
    assert (context.causal, context.num_queries, context.max_query, context.max_key) == (False, 3, 2, 2)
    assert (target.causal, target.num_queries, target.max_query, target.max_key) == (True, 6, 3, 4)
    for call, keys, cu_query, cu_key in (
        (context, [0, 2, 3], [0, 2, 3], [0, 2, 3]),
        (target, [0, 2, 4, 8, 10, 3, 5, 7, 9], [0, 1, 3, 6], [0, 3, 5, 9]),
    ):
        assert isinstance(call.keys, torch.Tensor)
        assert call.keys.tolist() == keys
        assert call.keys.dtype == torch.int64
        assert call.cu_query.tolist() == cu_query
        assert call.cu_key.tolist() == cu_key
        assert call.cu_query.dtype == call.cu_key.dtype == torch.int32


def test_tokens_in_a_row_need_no_list() -> None:
    packing = VarlenPacking.of([[(2, 3, 4)]], CPU)
    assert packing.queries == slice(2, 9)
    assert [call.keys for call in packing.calls] == [slice(2, 5), slice(2, 9)]


def test_padding_alone_has_no_calls() -> None:
    assert VarlenPacking.of([[], []], CPU).calls == ()
