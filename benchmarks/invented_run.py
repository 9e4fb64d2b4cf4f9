"""Folders as runs leave them, written without training: curves that look like a run's, with spikes at known steps.

For what reads runs: the report's tests and its benchmark.
"""

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TOKENS_PER_SAMPLE = 2048


def write_run(
    folder: Path,
    records: Iterable[Mapping[str, Any]],
    *,
    events: Iterable[Mapping[str, Any]] = (),
    config: str = "",
    ended: str | None = None,
) -> Path:
    """A run's folder of exactly these records and events."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("metrics", records), ("events", events)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if ended:
        (folder / "ended").write_text(ended + "\n", encoding="utf-8")
    return folder


def invented_records(
    *, steps: int, layers: int, seed: int = 1, spike_steps: Iterable[int] = (), level: float = 1.7
) -> Iterable[dict[str, Any]]:
    """Training records of every step and a validation of every fiftieth part of the run."""
    draw, spikes = random.Random(seed), set(spike_steps)
    samples, tokens = 0, dict.fromkeys(("gmask", "mask", "instruction"), 0.0)
    sources = dict.fromkeys(("text.english", "text.chinese", "text.code", "instructions.facts"), 0.0)
    for step in range(1, steps + 1):
        progress = step / steps
        batch = round(192 + 4032 * min(1.0, progress / 0.1)) // 16 * 16
        samples += batch
        for name, share in (("gmask", 0.7), ("mask", 0.25), ("instruction", 0.05)):
            tokens[name] += share * batch * TOKENS_PER_SAMPLE
        for name, share in zip(sources, (0.6 - 0.2 * progress, 0.2 + 0.2 * progress, 0.15, 0.05), strict=True):
            sources[name] += share * batch * TOKENS_PER_SAMPLE
        loss = level + 8 * math.exp(-40 * progress) + 0.6 * math.exp(-4 * progress) + draw.gauss(0, 0.04)
        height = 25.0 if step in spikes else 1.0
        norm = height * (0.12 + 2 * math.exp(-60 * progress)) * math.exp(draw.gauss(0, 0.12))
        yield {
            "kind": "train",
            "step": step,
            "samples": samples,
            **_losses(loss + (2.5 if height > 1 else 0), sources, draw),
            **_gradients(norm, layers, draw),
            **_weights(step, progress, layers),
            **_speed(batch, draw),
            "learning_rate": 8e-5 * min(progress / 0.02, 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2),
            "batch_size": batch,
            "shrink_alpha": 1 - 0.9 * min(1.0, progress * 2),
            "loss_scale": 2.0 ** (15 - int(progress * 5) % 3),
            "overflows": int(progress * 40),
            "skipped_updates": int(progress * 40),
            "skipped_steps": 0,
            "clip_share": 0.03 * progress,
            **{f"tokens/{name}": count for name, count in (tokens | sources).items()},
        }
        if step % max(1, steps // 50) == 0:
            losses = _losses(loss + 0.05, sources, draw)
            yield {"kind": "validation", "step": step, "samples": samples, **losses}


def _losses(loss: float, sources: Iterable[str], draw: random.Random) -> dict[str, float]:
    above = {"gmask": 0.1, "mask": -0.3, "instruction": -0.6}
    of_sources = {f"loss/{name}": loss + 0.2 * place - 0.2 for place, name in enumerate(sources)}
    return {
        "loss": loss,
        **{f"loss/{name}": loss + by + draw.gauss(0, 0.05) for name, by in above.items()},
        **of_sources,
    }


def _gradients(norm: float, layers: int, draw: random.Random) -> dict[str, float]:
    of_layers = {
        f"gradient_norm/layer.{layer}": norm * (0.05 + 0.4 * math.exp(-layer / 8)) * math.exp(draw.gauss(0, 0.2))
        for layer in range(layers)
    }
    parts = {"attention": 0.5, "ffn": 0.7, "norms": 0.1}
    return {
        "gradient_norm": norm,
        **{f"gradient_norm/{name}": norm * share for name, share in parts.items()},
        **of_layers,
        "embedding_gradient_norm": 0.6 * norm,
        "embedding_gradient_norm/input_side": 0.5 * norm * math.exp(draw.gauss(0, 0.1)),
        "embedding_gradient_norm/logit_side": 0.2 * norm * math.exp(draw.gauss(0, 0.1)),
    }


def _weights(step: int, progress: float, layers: int) -> dict[str, float]:
    if step % 10:
        return {}
    ratio = 2e-4 * (1.2 - progress)
    return {
        "parameter_norm": 900 + 300 * progress,
        "update_ratio": ratio,
        **{f"parameter_norm/layer.{layer}": 90 + progress for layer in range(layers)},
        **{f"update_ratio/layer.{layer}": ratio * (1 + layer / layers) for layer in range(layers)},
        "second_moment/embedding_min": 1e-14,
        "second_moment/embedding_max": 1e-6 * (1 - 0.9 * progress),
    }


def _speed(batch: int, draw: random.Random) -> dict[str, Any]:
    seconds = batch * 0.0123 * math.exp(abs(draw.gauss(0, 0.02)))
    return {
        "seconds": seconds,
        "data_wait_seconds": 0.01 * seconds * draw.random(),
        "tokens_per_second": batch * TOKENS_PER_SAMPLE / seconds,
        "samples_per_second": batch / seconds,
        "teraflops_per_gpu": 135 * batch * 0.0123 / seconds,
        "mfu": 0.433 * batch * 0.0123 / seconds,
        "hfu": 0.52 * batch * 0.0123 / seconds,
        "memory_allocated_gib": 33.1,
        "memory_reserved_gib": 36.9,
        "rank_seconds/min": 0.9 * seconds,
        "rank_seconds/median": 0.93 * seconds,
        "rank_seconds/max": (0.94 + 0.02 * draw.random()) * seconds,
        "slowest_rank": draw.randrange(768),
        "slowest_host": "node-17",
    }
