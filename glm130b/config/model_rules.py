"""Which models there are: rules among the switches of ``model``, and between them and what computes it."""

from collections.abc import Iterator
from typing import Literal

from glm130b.config.model import ModelConfig
from glm130b.config.sections import RunConfig
from glm130b.config.wording import inside, multiple


def model_problems(config: RunConfig) -> Iterator[str]:
    """What no layout could make right."""
    model = config.model
    yield from _heads(model)
    yield from _blocks(model)
    yield from _positions(config)
    yield from _attention_kernel(config)
    yield from inside("model.embedding_gradient_shrink.alpha", model.embedding_gradient_shrink.alpha, above_zero=True)


def flash_limits(kernel: Literal["varlen", "flash_attn"], model: ModelConfig) -> Iterator[str]:
    """Why a flash kernel cannot compute the model: each the end of a sentence that the kernel's name begins."""
    if model.head_size > 256:
        yield f"has heads up to 256 wide, these are {model.head_size}"
    if model.positions == "alibi":
        # flash-attn has ALiBi by distance in tokens, but the tokens of a blank share one position.
        yield "has no ALiBi by position, model.positions is alibi"
    if kernel == "varlen" and model.attention_dropout:
        yield f"has no dropout, model.attention_dropout is {model.attention_dropout:g}"
    if kernel == "varlen" and model.head_size % 8:
        yield f"has heads of a multiple of 8, these are {model.head_size} wide"


def _heads(model: ModelConfig) -> Iterator[str]:
    heads, shared = model.num_attention_heads, model.key_value_heads
    if heads % shared:
        divisor = next(some for some in range(min(shared, heads), 0, -1) if heads % some == 0)
        yield (
            f"model.num_key_value_heads: {shared} does not divide num_attention_heads {heads}, and each is shared by "
            f"equally many query heads; write for example {divisor}"
        )
    unit = {"rope": 2, "rope_2d": 4}.get(model.positions, 1)
    why = f"positions: {model.positions} turns pairs" + " in each half of a head" * (unit == 4)
    if model.head_dim is not None:
        yield from multiple("model.head_dim", model.head_dim, unit, why)
    elif model.hidden_size % heads:
        whole = "one part for each of num_attention_heads, where head_dim is null"
        yield from multiple("model.hidden_size", model.hidden_size, heads, whole)
    elif model.head_size % unit:
        yield (
            f"model.hidden_size: {model.hidden_size} over {heads} heads is {model.head_size} a head, not a multiple of "
            f"{unit} ({why}); write for example {heads * (model.head_size // unit + 1) * unit}"
        )


def _blocks(model: ModelConfig) -> Iterator[str]:
    if model.parallel_block and model.norm_placement != "pre":
        yield (
            f"model.parallel_block: true has one norm before attention and FFN, and norm_placement is "
            f"{model.norm_placement}; write norm_placement: pre or parallel_block: false"
        )
    if model.initial_std is not None and model.norm_placement == "deepnorm":
        yield (
            f"model.initial_std: {model.initial_std:g} would replace the gains that norm_placement: deepnorm rests on; "
            "write initial_std: null or another norm_placement"
        )


def _positions(config: RunConfig) -> Iterator[str]:
    model, length = config.model, config.data.sequence_length
    kind, rows = model.positions, model.max_positions
    if not model.has_learned_positions and rows is not None:
        yield (
            f"model.max_positions: {rows} has no meaning with positions: {kind}, which needs no table; "
            "write max_positions: null"
        )
    if model.has_learned_positions and (rows or 0) < length:
        yield (
            f"model.max_positions: {'null' if rows is None else rows} is too few rows for positions: {kind} at "
            f"data.sequence_length {length}; write {length} or more"
        )
    if model.rotary_table == "fp16" and not model.has_rotary_positions:
        yield (
            f"model.rotary_table: fp16 has no meaning with positions: {kind}, which turns nothing; "
            "write rotary_table: fp32"
        )


def _attention_kernel(config: RunConfig) -> Iterator[str]:
    """What the flash kernels cannot do; whether they are installed is found out where torch is."""
    kernel = config.kernels.attention
    if kernel not in ("varlen", "flash_attn"):
        return
    if config.precision.dtype == "fp32":
        yield (
            f"kernels.attention: {kernel} computes in fp16 and bf16, and precision.dtype is fp32; write sdpa, or "
            "dtype: bf16"
        )
    for limit in flash_limits(kernel, config.model):
        yield f"kernels.attention: {kernel} {limit}; write auto or sdpa, or change the model"
