"""Arithmetic on a valid config: what follows from it without a choice."""

from glm130b.config.model import ModelConfig
from glm130b.config.sections import RunConfig


def replica_size(config: RunConfig) -> int:
    """Processes that hold one replica of the model together."""
    return config.parallel.tensor * config.parallel.pipeline


def data_parallel_size(config: RunConfig, world_size: int) -> int:
    """Replicas of the model among ``world_size`` processes; both are known to fit each other (``rules.problems``)."""
    data, room = config.parallel.data, world_size // replica_size(config)
    if data == "largest":
        return next((size for size in range(room, 1, -1) if _shares_out(config, size)), 1)
    return data or room


def grid_size(config: RunConfig, world_size: int) -> int:
    """Processes that train among ``world_size``; with ``parallel.data: largest`` the others stand by."""
    return replica_size(config) * data_parallel_size(config, world_size)


def least_world_size(config: RunConfig) -> int:
    """Processes that a run needs at least."""
    data = config.parallel.data
    return replica_size(config) * (data if isinstance(data, int) else 1)


def batch_unit(config: RunConfig, data_size: int) -> int:
    """Rows that every batch, and every rise of one, is a multiple of: whole micro-batches for every data-parallel rank.

    Chunks of virtual stages take turns after as many micro-batches as there are stages.
    """
    parallel = config.parallel
    turns = parallel.pipeline if parallel.virtual_stages > 1 else 1
    return config.batch.micro_size * data_size * turns


def _shares_out(config: RunConfig, data_size: int) -> bool:
    """Whether all batches, on the way up and in evaluation, can be shared out over ``data_size`` replicas."""
    batch = config.batch
    sizes = [batch.global_size, config.evaluation.samples]
    sizes += [batch.ramp.start, batch.ramp.increment] if batch.ramp else []
    return all(size % batch_unit(config, data_size) == 0 for size in sizes)


def data_rank(config: RunConfig, rank: int, *, data_size: int) -> int:
    """Place of a process on the data axis; ranks count tensor first, then data, then pipeline."""
    return rank // config.parallel.tensor % data_size


def num_micro_batches(config: RunConfig, *, batch_size: int, data_size: int) -> int:
    """Micro-batches that one data-parallel rank runs in a step of ``batch_size`` rows."""
    return batch_size // (config.batch.micro_size * data_size)


def tokens_per_step(config: RunConfig, batch_size: int) -> int:
    """Tokens in a step of ``batch_size`` rows, padding included."""
    return batch_size * config.data.sequence_length


def bubble_share(config: RunConfig, num_micro_batches: int) -> float:
    """Share of a step that a stage waits for others, were all chunks equally long (Narayanan et al. 2021, section 2.2).

    A stage works on ``virtual_stages`` chunks for every micro-batch, and waits for as many chunks as there are other
    stages.
    """
    waits = config.parallel.pipeline - 1
    return waits / (config.parallel.virtual_stages * num_micro_batches + waits)


def layers_per_chunk(config: RunConfig) -> tuple[tuple[range, ...], ...]:
    """Indices of the layers in every chunk of every pipeline stage, as Megatron-core deals them out.

    Chunks follow each other over the stages, again and again: 8 layers in 2 virtual stages on each of 2 are
    ((0-1, 4-5), (2-3, 6-7)). With ``embedding_and_head_count_as_layers`` the first and the last chunk hold one layer
    less: 70 layers over 8 stages are 8, 9, 9, 9, 9, 9, 9, 8.
    """
    parallel, layers = config.parallel, config.model.num_layers
    num_chunks = parallel.pipeline * parallel.virtual_stages
    embedding = int(parallel.embedding_and_head_count_as_layers and parallel.pipeline > 1)
    size = (layers + 2 * embedding) // num_chunks
    starts = [max(chunk * size - embedding, 0) for chunk in range(num_chunks)]
    chunks = [range(start, end) for start, end in zip(starts, [*starts[1:], layers], strict=True)]
    return tuple(tuple(chunks[stage :: parallel.pipeline]) for stage in range(parallel.pipeline))


def layers_per_stage(config: RunConfig) -> tuple[int, ...]:
    """Transformer layers on each pipeline stage, in all its chunks."""
    return tuple(sum(map(len, chunks)) for chunks in layers_per_chunk(config))


def num_layer_parameters(model: ModelConfig, tensor: int = 1) -> int:
    """Parameters of one layer that one of ``tensor`` ranks holds; 1 gives the whole layer.

    The matrices and the biases of those cut by rows are shared out; the other biases and the norms are on every rank.
    """
    cut, whole = _layer_matrices(model), model.num_norms * _norm_parameters(model)
    if model.biases:
        cut += _projection_rows(model) + model.ffn_halves * model.ffn_hidden_size
        whole += 2 * model.hidden_size
    return cut // tensor + whole


def num_parameters(model: ModelConfig) -> int:
    """Parameters of the model; a tied embedding counts once."""
    return sum(_outside_layers(model, tensor=1)) + model.num_layers * num_layer_parameters(model)


def parameters_per_stage(config: RunConfig, tensor: int = 1) -> tuple[int, ...]:
    """Parameters on each stage, held by one of ``tensor`` ranks; 1 gives the whole stage.

    With more than one stage the last holds a copy of a tied embedding; the sum exceeds ``num_parameters`` by it.
    """
    model = config.model
    stages = [layers * num_layer_parameters(model, tensor) for layers in layers_per_stage(config)]
    first, last = _outside_layers(model, tensor)
    stages[0] += first
    stages[-1] += last
    if len(stages) > 1 and model.tie_embedding:
        stages[-1] += _vocabulary_matrix(model) // tensor
    return tuple(stages)


def model_flops_per_sample(config: RunConfig) -> int:
    """Floating-point operations of the matrix products of one row, forward and backward, recomputation not counted.

    Two per weight and token forward, twice that backward; attention as if every query saw the whole row. With as many
    key/value heads as heads and a gated FFN of 8/3 of the hidden size it is ``72 s l h^2 (1 + s / 6h + V / 12lh)``,
    equation 3 of Narayanan et al. 2021 without its recomputation.
    """
    model, length = config.model, config.data.sequence_length
    weights = model.num_layers * _layer_matrices(model) + _vocabulary_matrix(model)
    attention = model.num_layers * 2 * length * model.num_attention_heads * model.head_size
    return 6 * length * (weights + attention)


def hardware_flops_per_sample(config: RunConfig) -> int:
    """``model_flops_per_sample`` and what recomputation computes a second time.

    ``full`` repeats every layer's forward pass, ``selective`` the two products inside attention (Korthikanti et al.
    2022, section 5).
    """
    model, length = config.model, config.data.sequence_length
    attention = 2 * length * model.num_attention_heads * model.head_size
    repeated = {"none": 0, "selective": attention, "full": _layer_matrices(model) + attention}
    return model_flops_per_sample(config) + 2 * length * model.num_layers * repeated[config.parallel.recompute]


def checkpoint_bytes(config: RunConfig) -> int:
    """Size of one checkpoint: fp32 master weights, and with AdamW its two fp32 moments."""
    return num_parameters(config.model) * (12 if config.optimizer.name == "adamw" else 4)


def _outside_layers(model: ModelConfig, tensor: int) -> tuple[int, int]:
    """Parameters before and after the layers; the matrices of the vocabulary are shared out, the rest is not."""
    vocabulary = _vocabulary_matrix(model) // tensor
    before = vocabulary + model.num_position_tables * (model.max_positions or 0) * model.hidden_size
    before += model.embedding_norm * _norm_parameters(model)
    after = (model.norm_placement != "post") * _norm_parameters(model)
    return before, after + (not model.tie_embedding) * vocabulary


def _vocabulary_matrix(model: ModelConfig) -> int:
    return model.vocab_size * model.hidden_size


def _layer_matrices(model: ModelConfig) -> int:
    """Weights of one layer's matrices: query, key and value; attention's output; the FFN."""
    output_columns = model.num_attention_heads * model.head_size
    attention = (_projection_rows(model) + output_columns) * model.hidden_size
    return attention + (model.ffn_halves + 1) * model.ffn_hidden_size * model.hidden_size


def _projection_rows(model: ModelConfig) -> int:
    """Rows of the fused projection to query, key and value."""
    return (model.num_attention_heads + 2 * model.key_value_heads) * model.head_size


def _norm_parameters(model: ModelConfig) -> int:
    has_bias = model.biases and model.normalization == "layernorm"
    return model.hidden_size * (1 + has_bias)
