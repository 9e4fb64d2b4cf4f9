"""The segments of a micro-batch, and their one packing for variable-length attention."""

from dataclasses import replace

import torch

from glm130b.model.segments import PackedSegments

CPU = torch.device("cpu")


def test_causal_segments_have_no_context() -> None:
    positions_BS = torch.zeros(2, 8)
    segments = PackedSegments([[(0, 3, 2), (6, 0, 1)], [(1, 4, 0)]], positions_BS=positions_BS)
    assert segments.causal().rows == [[(0, 0, 5), (6, 0, 1)], [(1, 0, 4)]]
    assert segments.causal().positions_BS is positions_BS


def test_the_packing_is_made_once_and_belongs_to_its_rows() -> None:
    segments = PackedSegments([[(0, 3, 2)]])
    assert segments.packing(CPU) is segments.packing(CPU)
    for other in (segments.causal(), replace(segments, rows=[[(0, 5, 0)]])):
        assert other.packing(CPU) is not segments.packing(CPU)
        assert len(other.packing(CPU).calls) == 1
