"""A small run and its rows, made without files: every objective's shape of segments, a learnable rule, fixed by the
sample index."""

from typing import Any

import numpy as np

from glm130b.config.sections import RunConfig
from glm130b.data.objectives.row import Row, Segment

SEQUENCE, VOCAB = 32, 96
_LAYOUTS = {
    "mask": (Segment(0, 5, 3), Segment(8, 4, 4), Segment(16, 7, 1), Segment(24, 5, 2)),
    "gmask": (Segment(0, 9, 21),),
    "instruction": (Segment(0, 3, 5), Segment(8, 6, 2), Segment(16, 1, 7), Segment(24, 4, 3)),
}
_SOURCE = {"path": "nowhere", "weight": {"start": 1.0, "end": 1.0}}
_SOURCES = {"text": {"english": _SOURCE, "chinese": _SOURCE}, "instructions": {"english": _SOURCE}}
"""What the rows say they are of; the same name in both sections is two sources."""


def small_config(**sections: dict[str, Any]) -> RunConfig:
    """A valid config of 4 layers and hidden size 32; keyword arguments update single sections."""
    raw: dict[str, Any] = {
        "name": "small",
        "seed": 11,
        "train_samples": 8 * 20,
        "model": {
            "num_layers": 4,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "ffn_hidden_size": 48,
            "vocab_size": VOCAB,
            "embedding_gradient_shrink": {"alpha": {"start": 0.5, "end": 0.5}},
        },
        "data": {"tokenizer": "none", "sequence_length": SEQUENCE, **_SOURCES, "workers": 0},
        "objective": {"instruction_share": {"start": 0.05, "end": 0.05}, "mask_share": {"start": 0.3, "end": 0.3}},
        "batch": {"micro_size": 2, "global_size": 8},
        "optimizer": {
            "learning_rate": {"peak": 1e-2, "minimum": 1e-3, "warmup_samples": 16, "decay_samples": 160},
            "clip_gradient_norm": 0.5,
        },
        "precision": {"dtype": "fp32"},
        "parallel": {"tensor": 1, "pipeline": 1, "data": 1, "reduce_bucket_elements": 10_000},
        "evaluation": {"every_steps": 100, "samples": 8},
        "checkpoint": {"every_steps": 100},
        "logging": {"wandb": "disabled"},
    }
    for name, values in sections.items():
        if isinstance(values, dict):
            raw[name] = {**raw[name], **values}
        else:
            raw[name] = values
    return RunConfig.model_validate(raw)


class SyntheticRows:
    """Rows by sample index: the next token is an affine function of the last, so that a model can learn it."""

    def __getitem__(self, sample_index: int) -> Row:
        rng = np.random.default_rng(sample_index)
        objective = ("gmask", "mask", "gmask", "instruction")[sample_index % 4]
        tokens = np.zeros(SEQUENCE, np.int64)
        targets, positions, block_positions = tokens.copy(), tokens.copy(), tokens.copy()
        loss_mask = np.zeros(SEQUENCE, np.bool_)
        for segment in _LAYOUTS[objective]:
            split, end = segment.start + segment.context_length, segment.end
            chain = (rng.integers(VOCAB) + 5 * np.arange(end - segment.start + 1)) % VOCAB
            tokens[segment.start : end], targets[segment.start : end] = chain[:-1], chain[1:]
            positions[segment.start : end] = np.arange(end - segment.start)
            if objective == "mask":
                positions[split:end] = segment.context_length // 2
            block_positions[split:end] = np.arange(1, end - split + 1)
            loss_mask[split:end] = True
        source = "chinese" if sample_index % 4 == 0 else "english"
        return Row(tokens, targets, loss_mask, positions, block_positions, _LAYOUTS[objective], objective, source)
