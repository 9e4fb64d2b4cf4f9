"""Arithmetic on a valid config: what follows from it without a choice."""

from itertools import accumulate

from glm130b.config.sections import ModelConfig, RunConfig


def data_parallel_size(config: RunConfig, world_size: int) -> int:
    """Replicas of the model among ``world_size`` processes; both are known to fit each other (``rules.problems``)."""
    return config.parallel.data or world_size // (config.parallel.tensor * config.parallel.pipeline)


def num_micro_batches(config: RunConfig, *, batch_size: int, data_size: int) -> int:
    """Micro-batches that one data-parallel rank runs in a step of ``batch_size`` rows."""
    return batch_size // (config.batch.micro_size * data_size)


def tokens_per_step(config: RunConfig, batch_size: int) -> int:
    """Tokens in a step of ``batch_size`` rows, padding included."""
    return batch_size * config.data.sequence_length


def layers_per_stage(config: RunConfig) -> tuple[int, ...]:
    """Transformer layers on each pipeline stage, as Megatron-core deals them out.

    With ``embedding_and_head_count_as_layers`` the first and the last stage hold one layer less: 70 layers over 8
    stages are (8, 9, 9, 9, 9, 9, 9, 8).
    """
    stages = config.parallel.pipeline
    if stages == 1 or not config.parallel.embedding_and_head_count_as_layers:
        return (config.model.num_layers // stages,) * stages
    inner = (config.model.num_layers + 2) // stages
    return (inner - 1, *(inner,) * (stages - 2), inner - 1)


def stage_offsets(config: RunConfig) -> tuple[int, ...]:
    """Global index of the first layer of each stage."""
    return tuple(accumulate(layers_per_stage(config)[:-1], initial=0))


def num_layer_parameters(model: ModelConfig, tensor: int = 1) -> int:
    """Parameters of one layer that one of ``tensor`` ranks holds; 1 gives the whole layer.

    The matrices and the biases of those cut by rows are shared out; the other biases and the LayerNorms are on every
    rank.
    """
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    matrices = 4 * hidden**2 + 3 * hidden * ffn
    cut_biases = 3 * hidden + 2 * ffn
    whole = 2 * hidden + 4 * hidden  # biases of the two output projections, two LayerNorms
    return (matrices + cut_biases) // tensor + whole


def num_parameters(model: ModelConfig) -> int:
    """Parameters of the model; the embedding, tied to the output projection, counts once."""
    embedding = model.vocab_size * model.hidden_size
    final_layernorm = 2 * model.hidden_size
    return embedding + model.num_layers * num_layer_parameters(model) + final_layernorm


def parameters_per_stage(config: RunConfig, tensor: int = 1) -> tuple[int, ...]:
    """Parameters on each stage, held by one of ``tensor`` ranks; 1 gives the whole stage.

    With more than one stage the last holds a copy of the tied embedding; the sum exceeds ``num_parameters`` by it.
    """
    model = config.model
    embedding = model.vocab_size * model.hidden_size // tensor
    stages = [layers * num_layer_parameters(model, tensor) for layers in layers_per_stage(config)]
    stages[0] += embedding
    stages[-1] += 2 * model.hidden_size + (embedding if len(stages) > 1 else 0)
    return tuple(stages)


def model_flops_per_sample(config: RunConfig) -> int:
    """Floating-point operations of the matrix products of one row, forward and backward, recomputation not counted.

    Two per weight and token forward, twice that backward; attention as if every query saw the whole row. With a gated
    FFN of 8/3 of the hidden size it is ``72 s l h^2 (1 + s / 6h + V / 12lh)``, equation 3 of Narayanan et al. 2021
    without its recomputation.
    """
    model, length = config.model, config.data.sequence_length
    layer_weights = 4 * model.hidden_size**2 + 3 * model.hidden_size * model.ffn_hidden_size
    weights = model.num_layers * layer_weights + model.vocab_size * model.hidden_size
    attention = 2 * length * model.hidden_size * model.num_layers
    return 6 * length * (weights + attention)


def checkpoint_bytes(config: RunConfig) -> int:
    """Size of one checkpoint: fp32 master weights, and with AdamW its two fp32 moments."""
    return num_parameters(config.model) * (12 if config.optimizer.name == "adamw" else 4)
