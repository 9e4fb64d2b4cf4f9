"""What stands around the attention kernel: positions, scale, this rank's slopes, dropout."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.environment import Launch
from glm130b.model.alibi import alibi_slopes
from glm130b.model.attention import PrefixAttention
from glm130b.model.attention_sdpa import attend_with_sdpa
from glm130b.model.rotary import rotary_table
from glm130b.model.segments import PackedSegments
from glm130b.model.transformer_config import transformer_config
from glm130b.parallel.topology import seed_dropout
from tests.harness.attention import LAYOUTS, D, N, S, dense, random_qkv
from tests.harness.pool import run_distributed
from tests.harness.stage import joined
from tests.harness.synthetic import small_config

ROWS = [LAYOUTS["packed"]]


def build(groups: Any = None, softmax_scale: float | None = None, **model: Any) -> PrefixAttention:
    """The attention of ``small_config``, which has four heads of eight."""
    config = small_config(model=model)
    return PrefixAttention(
        config=transformer_config(config.model, config.parallel, config.precision),
        kernel=attend_with_sdpa,
        has_alibi=config.model.positions == "alibi",
        pg_collection=groups,
        softmax_scale=softmax_scale,
        layer_number=3,
    )


def test_without_positions_it_is_the_kernel_with_the_usual_scale() -> None:
    qkv = random_qkv(num_rows=1)
    ours = build()(*qkv, packed_seq_params=PackedSegments(ROWS))
    torch.testing.assert_close(ours, dense(qkv, ROWS), atol=1e-5, rtol=1e-5)


def test_the_scale_can_be_given() -> None:
    qkv = random_qkv(num_rows=1)
    ours = build(softmax_scale=0.125)(*qkv, packed_seq_params=PackedSegments(ROWS))
    torch.testing.assert_close(ours, dense(qkv, ROWS, scale=0.125), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours, dense(qkv, ROWS), atol=1e-2)


def test_queries_and_keys_turn_and_values_do_not() -> None:
    query, key, value = random_qkv(num_rows=1)
    table = rotary_table(
        torch.arange(S)[None, None], head_dim=D, base=100.0, table_dtype=torch.float32, dtype=torch.float32
    )
    ours = build()(query, key, value, packed_seq_params=PackedSegments(ROWS, rotary=table))
    expected = dense([table.rotate(query), table.rotate(key), value], ROWS)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_each_tensor_rank_has_the_slopes_of_its_own_heads(rank: int) -> None:
    groups = SimpleNamespace(tp=SimpleNamespace(size=lambda: 2, rank=lambda: rank))
    module = build(groups, positions="alibi").bfloat16()
    slopes_N = alibi_slopes(N)[2 * rank : 2 * rank + 2]
    assert module.slopes_N is not None
    assert torch.equal(module.slopes_N, slopes_N)  # in fp32, whatever the model's dtype
    qkv = [x[:, :, 2 * rank : 2 * rank + 2] for x in random_qkv(num_rows=1)]
    positions_BS = torch.arange(S)[None] // 2
    ours = module(*qkv, packed_seq_params=PackedSegments(ROWS, positions_BS=positions_BS))
    distance_SS = (positions_BS[0, :, None] - positions_BS[0]).abs()
    expected = dense(qkv, ROWS, bias_BNSS=-slopes_N[:, None, None] * distance_SS)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_dropout_is_for_training_only() -> None:
    qkv = random_qkv(num_rows=1)
    ours = build(attention_dropout=0.5).eval()(*qkv, packed_seq_params=PackedSegments(ROWS))
    torch.testing.assert_close(ours, dense(qkv, ROWS), atol=1e-5, rtol=1e-5)


def dropped_out(launch: Launch, config: RunConfig, seeds: list[int]) -> list[Tensor]:
    """One training forward after each seed."""
    with joined(launch, config) as topology, torch.no_grad():
        module = build(attention_dropout=0.5)
        answers = []
        for seed in seeds:
            seed_dropout(seed, topology)
            before = torch.get_rng_state()
            answers.append(module(*random_qkv(num_rows=1), packed_seq_params=PackedSegments(ROWS)))
            # The stream of replicated activations is left where it was, or the ranks' streams would part.
            assert torch.equal(torch.get_rng_state(), before)
        return answers


def test_dropout_follows_the_seed_and_differs_between_tensor_ranks() -> None:
    config = small_config(parallel={"tensor": 2})
    (first, again, other), (other_heads, *_) = run_distributed(dropped_out, 2, config, [1, 1, 2])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, other_heads)
    plain = dense(random_qkv(num_rows=1), ROWS)
    assert not torch.allclose(first, plain, atol=0.1)
