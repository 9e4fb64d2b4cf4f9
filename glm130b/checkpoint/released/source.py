"""A checkpoint in the released layout: its shards joined row by row, and everything that can be wrong with it."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from glm130b.checkpoint.released.layout import (
    ReleasedTensor,
    check_cut,
    check_model,
    released_tensors,
    rotary_keys,
    rotary_width,
    shard_file,
)
from glm130b.checkpoint.released.shard_reader import ReleasedShard, open_shard
from glm130b.config.errors import UserError
from glm130b.config.model import ModelConfig

_FORMATS = (torch.float16, torch.bfloat16, torch.float32)
_TOLD = 3
"""Problems of one kind in one file that are told one by one; a file of another model has them in every tensor."""


class ReleasedCheckpoint:
    """The shards of one checkpoint, in the order of their ranks."""

    def __init__(self, shards: list[ReleasedShard]) -> None:
        self.shards = shards

    @classmethod
    def open(cls, folder: Path) -> "ReleasedCheckpoint":
        """Find and open every shard of the iteration that ``latest`` names. Raises UserError with every bad file."""
        shards: list[ReleasedShard] = []
        problems: list[str] = []
        for file in _shard_files(_iteration(folder)):
            try:
                shards.append(open_shard(file))
            except UserError as error:
                problems += error.problems
            except OSError as error:
                problems.append(f"{file}: cannot be read ({error.strerror}); let this user read it")
        if problems:
            raise UserError(problems)
        return cls(shards)

    def rows(self, tensor: ReleasedTensor, start: int, stop: int) -> Tensor:
        """The rows ``start .. stop - 1`` of one of our whole tensors, in fp32, of the shards that hold them."""
        whole = torch.empty(stop - start, *tensor.shape[1:], dtype=torch.float32)
        shards = self.shards[:1] if tensor.cut is None else self.shards
        for rank, shard in enumerate(shards):
            for span in tensor.spans(rank, len(self.shards)):
                if tensor.cut == 1:
                    part = shard.rows(tensor.key, start, stop)
                    whole.narrow(1, span.whole, span.length).copy_(part.narrow(1, span.local, span.length))
                elif (low := max(start, span.whole)) < (high := min(stop, span.whole + span.length)):
                    local = span.local + low - span.whole
                    whole[low - start : high - start] = shard.rows(tensor.key, local, local + high - low)
        return whole

    def check(self, model: ModelConfig) -> None:
        """Raise UserError unless this is, whole and undamaged, a checkpoint of this model.

        First what the files hold (sizes against the config, then names, shapes and number formats), then every byte.
        """
        check_model(model)
        _refuse(self._sizes(model))
        check_cut(model, len(self.shards))
        _refuse(self._contents(model))
        _refuse(self._damages())
        _refuse(self._copies(model))

    def _sizes(self, model: ModelConfig) -> Iterator[str]:
        """Where the first shard, times the number of shards, is of another size than the config."""
        first, num_shards = self.shards[0].tensors, len(self.shards)
        keys = {key for shard in self.shards for key in shard.tensors}
        layers = {int(found[1]) for key in keys if (found := re.match(r"transformer\.layers\.(\d+)\.", key))}
        sizes = {"num_layers": max(layers, default=-1) + 1}
        if (embedding := first.get("transformer.word_embeddings.weight")) and len(embedding.shape) == 2:
            sizes |= {"vocab_size": embedding.shape[0] * num_shards, "hidden_size": embedding.shape[1]}
        if (output := first.get("transformer.layers.0.mlp.dense_4h_to_h.weight")) and len(output.shape) == 2:
            sizes["ffn_hidden_size"] = output.shape[1] * num_shards
        for key, size in sizes.items():
            if size != getattr(model, key):
                yield (
                    f"model.{key}: {getattr(model, key)} in the config, {size} in the {num_shards} shards of "
                    f"{self.shards[0].path.parent}; write {key}: {size}, or give all shards"
                )
        table = first.get(rotary_keys(model)[0])
        widths = (rotary_width(model), model.head_size)  # the original made tables for either kind of positions
        if table and (width := 2 * math.prod(table.shape)) not in widths:
            yield (
                f"model.num_attention_heads: {model.num_attention_heads} in the config are heads of {model.head_size}, "
                f"and {self.shards[0].path} has rotary frequencies for heads of {width}; write its number of heads"
            )

    def _contents(self, model: ModelConfig) -> Iterator[str]:
        """Missing, extra and misshapen tensors of each shard."""
        expected = {tensor.key: tensor.shard_shape(len(self.shards)) for tensor in released_tensors(model)}
        optional = set(rotary_keys(model))
        for shard in self.shards:
            found = shard.tensors
            missing = [f"lacks {key}; copy the file again" for key in expected if key not in found]
            extra = [
                f"has {key}, which the model of the config has not; give the checkpoint of this model"
                for key in found
                if key not in expected and key not in optional
            ]
            misshapen = [
                f"{key} has shape {list(found[key].shape)}, and one of {len(self.shards)} shards has {list(shape)}; "
                "give the shards of one checkpoint, all of them"
                for key, shape in expected.items()
                if key in found and found[key].shape != shape
            ]
            not_floating = [
                f"{key} is of {found[key].dtype}; give weights of float16, bfloat16 or float32, not quantised ones"
                for key in expected
                if key in found and found[key].dtype not in _FORMATS
            ]
            for kind in (missing, extra, misshapen, not_floating):
                yield from (f"{shard.path}: {problem}" for problem in _first(kind))

    def _damages(self) -> Iterator[str]:
        for shard in self.shards:
            yield from _first(shard.damages())

    def _copies(self, model: ModelConfig) -> Iterator[str]:
        """Tensors that every shard copies and that are not the same everywhere."""
        first = self.shards[0]
        for tensor in (tensor for tensor in released_tensors(model) if tensor.cut is None):
            length = tensor.shape[0]
            original = first.rows(tensor.key, 0, length)
            for shard in self.shards[1:]:
                copy = shard.rows(tensor.key, 0, length)
                if copy.dtype != original.dtype or not torch.equal(_bits(copy), _bits(original)):
                    yield (
                        f"{shard.path}: {tensor.key} is not that of {first.path.name}, and every shard has a copy of "
                        "it; give the shards of one checkpoint"
                    )


def _iteration(folder: Path) -> Path:
    """The folder that ``latest`` names."""
    pointer = folder / "latest"
    try:
        iteration = pointer.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise UserError(
            f"{pointer}: cannot be read ({reason}); name the folder that holds `latest` and the shards' folder"
        ) from None
    if not iteration or not (folder / iteration).is_dir():
        raise UserError(f"{pointer}: names {iteration!r}, which is no folder beside it; write the name of the shards'")
    return folder / iteration


def _shard_files(folder: Path) -> list[Path]:
    """All ``mp_rank_XX`` files, which must be numbered from 0 without a gap."""
    ranks = {}
    for file in folder.glob("mp_rank_*_model_states.pt"):
        if found := re.fullmatch(r"mp_rank_(\d+)_model_states\.pt", file.name):
            ranks[int(found[1])] = file
    if not ranks:
        raise UserError(f"{folder}: holds no {shard_file(0)}; name a checkpoint in the released layout")
    missing = [shard_file(rank) for rank in range(max(ranks)) if rank not in ranks]
    if missing:
        raise UserError([f"{folder / name}: is missing; shards are numbered from 0 without a gap" for name in missing])
    return [ranks[rank] for rank in sorted(ranks)]


def _refuse(problems: Iterator[str]) -> None:
    if found := list(problems):
        raise UserError(found)


def _bits(vector: Tensor) -> Tensor:
    return vector.contiguous().view(torch.uint8)


def _first(problems: list[str]) -> list[str]:
    """Not more of a kind than one wants to read."""
    rest = len(problems) - _TOLD
    return [*problems[:_TOLD], f"... and {rest} more tensors like this"] if rest > 0 else problems
