"""The released layout: its names, and which rows or columns of our whole tensors each of its shards holds.

    latest                                    text: <iteration>, "49300" without a newline
    <iteration>/mp_rank_00_model_states.pt    {"module": {key: fp16 tensor}}, one file for each tensor-parallel rank

Matrices and names as GLM-130B's inference program (SwissArmyTransformer) has them. The rows of query, key and value are
ordered as ours, head by head; of the gated FFN's first matrix a shard holds its linear rows, then its gated rows, while
the whole tensor of ours has all gated rows first.
"""

from dataclasses import dataclass
from typing import NamedTuple

from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig


class Span(NamedTuple):
    """``length`` consecutive rows (or columns): where they start in a shard and in the whole tensor."""

    local: int
    whole: int
    length: int


@dataclass(frozen=True)
class ReleasedTensor:
    """A tensor of the released layout and the tensor of ours that it is."""

    key: str
    """Theirs, for example ``transformer.layers.3.attention.dense.weight``."""
    name: str
    """Ours, for example ``decoder.layers.3.self_attention.linear_proj.weight``."""
    shape: tuple[int, ...]
    """Of the whole tensor, on both sides."""
    cut: int | None = None
    """The dimension over which the shards share it out; None when every shard holds a copy."""
    halves_swapped: bool = False
    """Each shard holds [its linear rows; its gated rows]; ours is [gated rows; linear rows]."""

    def shard_shape(self, num_shards: int) -> tuple[int, ...]:
        """Shape in each of ``num_shards`` shards, which divide the cut dimension."""
        return tuple(n // num_shards if dim == self.cut else n for dim, n in enumerate(self.shape))

    def spans(self, shard: int, num_shards: int) -> tuple[Span, ...]:
        """What one shard holds along the cut dimension; of a copied tensor everything.

        >>> ReleasedTensor("", "", (16,), cut=0, halves_swapped=True).spans(1, num_shards=2)
        (Span(local=0, whole=12, length=4), Span(local=4, whole=4, length=4))
        """
        if self.cut is None:
            return (Span(0, 0, self.shape[0]),)
        length = self.shape[self.cut] // num_shards
        if not self.halves_swapped:
            return (Span(0, shard * length, length),)
        half, middle = length // 2, self.shape[self.cut] // 2
        return Span(0, middle + shard * half, half), Span(half, shard * half, half)


def released_tensors(model: ModelConfig) -> list[ReleasedTensor]:
    """Every weight of a model, in the order of the released files."""
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    tensors = [
        ReleasedTensor("transformer.word_embeddings.weight", "embedding.word.weight", (model.vocab_size, hidden), cut=0)
    ]
    for layer in range(model.num_layers):
        theirs, ours = f"transformer.layers.{layer}", f"decoder.layers.{layer}"
        attention, own_attention = f"{theirs}.attention", f"{ours}.self_attention"
        tensors += [
            *_norm(f"{theirs}.input_layernorm", f"{ours}.input_layernorm", hidden),
            *_cut_by_rows(f"{attention}.query_key_value", f"{own_attention}.linear_qkv", (3 * hidden, hidden)),
            *_cut_by_columns(f"{attention}.dense", f"{own_attention}.linear_proj", (hidden, hidden)),
            *_norm(f"{theirs}.post_attention_layernorm", f"{ours}.pre_mlp_layernorm", hidden),
            *_cut_by_rows(
                f"{theirs}.mlp.dense_h_to_4h", f"{ours}.mlp.linear_fc1", (2 * ffn, hidden), halves_swapped=True
            ),
            *_cut_by_columns(f"{theirs}.mlp.dense_4h_to_h", f"{ours}.mlp.linear_fc2", (hidden, ffn)),
        ]
    return [*tensors, *_norm("transformer.final_layernorm", "decoder.final_layernorm", hidden)]


def rotary_keys(model: ModelConfig) -> list[str]:
    """The tables of rotary frequencies, a copy in each layer of each shard; no weights, and optional in a file."""
    return [f"transformer.layers.{layer}.attention.rotary_emb.inv_freq" for layer in range(model.num_layers)]


def rotary_width(model: ModelConfig) -> int:
    """Dimensions of a head that turn by one position; a table has a frequency for each pair of them."""
    return model.head_size // (2 if model.positions == "rope_2d" else 1)


def check_model(model: ModelConfig) -> None:
    """Raise UserError naming every key that makes a model which the released layout has no place for."""
    wanted: dict[str, tuple[tuple[object, ...], str]] = {
        "num_key_value_heads": ((None, model.num_attention_heads), "as many as query heads (null)"),
        "head_dim": (
            (None, model.hidden_size // model.num_attention_heads),
            "hidden_size / num_attention_heads (null)",
        ),
        "positions": (("rope", "rope_2d"), "rope or rope_2d"),
        "ffn": (("geglu",), "geglu"),
        "norm_placement": (("deepnorm",), "deepnorm"),
        "normalization": (("layernorm",), "layernorm"),
        "parallel_block": ((False,), "false"),
        "embedding_norm": ((False,), "false"),
        "biases": ((True,), "true"),
        "tie_embedding": ((True,), "true"),
    }
    problems = [
        f"model.{key}: {getattr(model, key)!r} has no place in the released layout; write {mend}, or keep such a model "
        "in checkpoints of its own run"
        for key, (allowed, mend) in wanted.items()
        if getattr(model, key) not in allowed
    ]
    if problems:
        raise UserError(problems)


def check_cut(model: ModelConfig, num_shards: int) -> None:
    """Raise UserError when the model cannot be shared out evenly over so many shards."""
    problems = [
        f"model.{key}: {value} does not divide over {num_shards} shards; choose a number of shards that divides it"
        for key in ("vocab_size", "num_attention_heads", "ffn_hidden_size")
        if (value := getattr(model, key)) % num_shards
    ]
    if problems:
        raise UserError(problems)


def shard_file(shard: int) -> str:
    """Name of a shard's file."""
    return f"mp_rank_{shard:02d}_model_states.pt"


def _norm(key: str, name: str, hidden: int) -> tuple[ReleasedTensor, ...]:
    return tuple(ReleasedTensor(f"{key}.{part}", f"{name}.{part}", (hidden,)) for part in ("weight", "bias"))


def _cut_by_rows(
    key: str, name: str, shape: tuple[int, int], *, halves_swapped: bool = False
) -> tuple[ReleasedTensor, ...]:
    return (
        ReleasedTensor(f"{key}.weight", f"{name}.weight", shape, cut=0, halves_swapped=halves_swapped),
        ReleasedTensor(f"{key}.bias", f"{name}.bias", shape[:1], cut=0, halves_swapped=halves_swapped),
    )


def _cut_by_columns(key: str, name: str, shape: tuple[int, int]) -> tuple[ReleasedTensor, ...]:
    return (
        ReleasedTensor(f"{key}.weight", f"{name}.weight", shape, cut=1),
        ReleasedTensor(f"{key}.bias", f"{name}.bias", shape[:1]),
    )
