"""Micro-batches: weights of a row sum to one, and a step's rows do not depend on how they are dealt out."""

from typing import cast

import numpy as np
import pytest
import torch

from glm130b.data.batch import MicroBatch, collate
from glm130b.data.batches import micro_batches
from glm130b.data.dataset import GLMDataset
from glm130b.data.mixing.shares import Kind
from tests.harness.synthetic import SyntheticRows

ROWS = SyntheticRows()


def test_a_row_s_weights_are_equal_on_its_loss_tokens_and_sum_to_one() -> None:
    rows = [ROWS[sample] for sample in range(4)]
    batch = collate(rows)
    assert batch.loss_weights_BS.dtype == torch.float32
    assert torch.allclose(batch.loss_weights_BS.sum(dim=1), torch.ones(4))
    for weights_S, row in zip(batch.loss_weights_BS, rows, strict=True):
        assert np.array_equal(weights_S.numpy() > 0, row.loss_mask)
        assert len(set(weights_S[weights_S > 0].tolist())) == 1


def test_tensors_are_the_rows() -> None:
    rows = [ROWS[sample] for sample in range(3)]
    batch = collate(rows).to("cpu")
    tensors = {
        "tokens": batch.tokens_BS,
        "targets": batch.targets_BS,
        "positions": batch.positions_B2S[:, 0],
        "block_positions": batch.positions_B2S[:, 1],
    }
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.int64
        assert np.array_equal(tensor.numpy(), np.stack([getattr(row, name) for row in rows]))
    assert batch.segments == tuple(row.segments for row in rows)
    assert batch.kinds == tuple(Kind(row.objective, row.source) for row in rows)


def test_a_batch_moves_with_all_its_tensors() -> None:
    moved = collate([ROWS[0]]).to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_a_row_without_loss_has_weight_zero() -> None:
    row = ROWS[0]
    row.loss_mask[:] = False
    assert not collate([row]).loss_weights_BS.any()


def dealt(
    *, micro_size: int, data_size: int, batch_size: int = 24, first_sample: int = 1000
) -> dict[int, torch.Tensor]:
    """Row index in the step to its tokens, by where the contract says that it is."""
    dataset = cast(GLMDataset, ROWS)
    ranks: list[list[MicroBatch]] = [
        list(
            micro_batches(
                dataset,
                first_sample=first_sample,
                batch_size=batch_size,
                micro_size=micro_size,
                data_rank=rank,
                data_size=data_size,
            )
        )
        for rank in range(data_size)
    ]
    assert {len(batches) for batches in ranks} == {batch_size // (micro_size * data_size)}
    return {
        j: ranks[(j // micro_size) % data_size][(j // micro_size) // data_size].tokens_BS[j % micro_size]
        for j in range(batch_size)
    }


@pytest.mark.parametrize(("micro_size", "data_size"), [(1, 1), (2, 3), (4, 2), (3, 8), (24, 1), (1, 24)])
def test_every_layout_sees_the_same_rows(micro_size: int, data_size: int) -> None:
    rows = dealt(micro_size=micro_size, data_size=data_size)
    for j, tokens_S in rows.items():
        assert np.array_equal(tokens_S.numpy(), ROWS[1000 + j].tokens)
