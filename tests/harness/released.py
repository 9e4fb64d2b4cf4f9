"""Small checkpoints in the released layout, and the cutting of their tensors written a second time, from the facts."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.config.model import ModelConfig
from glm130b.data.tokenizers import training as tokenizer_training
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.training.progress import Progress
from tests.harness.training import LiveRun
from tests.unit.data.text_files import docstrings, write_jsonl

ROWS = ("word_embeddings.weight", "query_key_value.weight", "query_key_value.bias")
COLUMNS = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")
HALVES = ("mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.bias")
ITERATION = "49300"


def released_weights(model: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """A whole model in the released layout, fp16, each value drawn by itself; with it a network still learns."""
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    shapes: dict[str, tuple[int, ...]] = {"transformer.word_embeddings.weight": (model.vocab_size, hidden)}
    for layer in range(model.num_layers):
        shapes |= {
            f"transformer.layers.{layer}.{key}": shape
            for key, shape in {
                "input_layernorm.weight": (hidden,),
                "input_layernorm.bias": (hidden,),
                "attention.query_key_value.weight": (3 * hidden, hidden),
                "attention.query_key_value.bias": (3 * hidden,),
                "attention.dense.weight": (hidden, hidden),
                "attention.dense.bias": (hidden,),
                "attention.rotary_emb.inv_freq": (hidden // model.num_attention_heads // 2,),
                "post_attention_layernorm.weight": (hidden,),
                "post_attention_layernorm.bias": (hidden,),
                "mlp.dense_h_to_4h.weight": (2 * ffn, hidden),
                "mlp.dense_h_to_4h.bias": (2 * ffn,),
                "mlp.dense_4h_to_h.weight": (hidden, ffn),
                "mlp.dense_4h_to_h.bias": (hidden,),
            }.items()
        }
    shapes |= {f"transformer.final_layernorm.{part}": (hidden,) for part in ("weight", "bias")}
    generator = torch.Generator().manual_seed(seed)
    return {
        key: (0.1 * torch.randn(shape, generator=generator) + key.endswith("layernorm.weight")).half()
        for key, shape in shapes.items()
    }


def shard_of(key: str, whole: Tensor, rank: int, num_shards: int) -> Tensor:
    """What one tensor-parallel rank holds of a whole tensor."""
    if key.endswith(HALVES):
        linear, gated = whole.chunk(2)
        return torch.cat((linear.chunk(num_shards)[rank], gated.chunk(num_shards)[rank]))
    if key.endswith(ROWS):
        return whole.chunk(num_shards)[rank].clone()
    if key.endswith(COLUMNS):
        return whole.chunk(num_shards, dim=1)[rank].clone()
    return whole


def write_released(folder: Path, weights: Mapping[str, Tensor], num_shards: int = 1) -> Path:
    """The checkpoint as the original wrote it; its folder."""
    (folder / ITERATION).mkdir(parents=True)
    (folder / "latest").write_text(ITERATION)
    for rank in range(num_shards):
        module = {key: shard_of(key, whole, rank, num_shards) for key, whole in weights.items()}
        torch.save({"module": module}, shard_path(folder, rank))
    return folder


def shard_path(folder: Path, rank: int) -> Path:
    """File of a shard, of ``write_released``."""
    return folder / ITERATION / f"mp_rank_{rank:02d}_model_states.pt"


def write_tokenizer(folder: Path) -> Path:
    """Any tokenizer: a checkpoint keeps its checksum."""
    text = write_jsonl(folder / "text.jsonl", [{"text": text} for _, text in docstrings()])
    model = folder / "tokenizer.model"
    model.write_bytes(tokenizer_training.train([text], pieces=360)[0])
    return model


def restored(run: LiveRun) -> Progress:
    """Load the newest checkpoint of the run's own folder, as ``pretrain`` does; where the run then stands."""
    config = run.config
    checkpoints = Path(config.folder) / config.name / "checkpoints"
    newest = CheckpointFolder(checkpoints).latest()
    assert newest is not None
    return run.store(checkpoints, Tokenizer.load(config.data.tokenizer).fingerprint).continued_from(newest)
