"""The rules of rows in lists and loops: what benchmarks/rows.py compares the product with."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import Any

import torch
from torch import Tensor

from glm130b.config.sections import RunConfig
from glm130b.data.objectives.spans import most_spans, span_length_probabilities


class PlainRows:
    """Rows of one corpus, in another random order than the product's, under the same laws."""

    def __init__(self, corpus: Any, config: RunConfig, special: Any) -> None:
        self._corpus, self._special, self._isolate = corpus, special, config.data.isolate_documents
        self._length, self._slots = config.data.sequence_length, config.objective.samples_per_row
        self._slot_tokens = self._length // self._slots
        self._mask, self._gmask = config.objective.mask, config.objective.gmask
        self._law = list(accumulate(span_length_probabilities(self._mask).tolist()))
        self._most = most_spans(self._slot_tokens, self._mask).tolist()
        self._needed = [0, *(tokens + 2 * most for tokens, most in list(enumerate(self._most))[1:])]
        self._num_stretches = corpus.num_tokens // (self._length - 1)

    def row(self, objective: str, ordinal: int) -> dict[str, list[int]]:
        """Tokens, targets, loss mask, positions and block positions."""
        rng = Random(ordinal)
        start, length = rng.randrange(self._num_stretches) * (self._length - 1), self._length - 1
        text = self._corpus.read(start, length).tolist()
        ends = [length]
        if self._isolate:
            ends = [*(end - start for end in self._corpus.document_starts(start, length).tolist()), length]
        row = _empty_row()
        if objective == "gmask":
            for slot in self._laid_out(rng, ends, [0, *range(2, self._length + 1)], slots=1, slot_tokens=self._length):
                for first, size in slot:
                    self._continue(row, rng, text[first : first + size])
            _pad(row, self._length)
        else:
            pieces = self._laid_out(rng, ends, self._needed, slots=self._slots, slot_tokens=self._slot_tokens)
            for number, slot in enumerate(pieces):
                for first, size in slot:
                    self._infill(row, rng, text[first : first + size])
                _pad(row, (number + 1) * self._slot_tokens)
        return row

    def _laid_out(
        self, rng: Random, ends: Sequence[int], needed: Sequence[int], *, slots: int, slot_tokens: int
    ) -> list[list[tuple[int, int]]]:
        def filled(start: int) -> list[list[tuple[int, int]]]:
            pieces: list[list[tuple[int, int]]] = []
            for _ in range(slots):
                pieces.append([])
                free = slot_tokens
                while start < ends[-1]:
                    size = min(ends[bisect_right(ends, start)] - start, bisect_right(needed, free) - 1)
                    if not size:
                        break
                    pieces[-1].append((start, size))
                    start, free = start + size, free - needed[size]
            return pieces

        used = sum(size for slot in filled(0) for _, size in slot)
        return filled(rng.randrange(ends[-1] - used + 1))

    def _infill(self, row: dict[str, list[int]], rng: Random, text: list[int]) -> None:
        mask, special = self._mask, self._special
        if rng.random() < mask.short_text_share:
            size = rng.randint(min(mask.short_text_minimum_tokens, len(text)), len(text))
            first = rng.randint(0, len(text) - size)
            text = text[first : first + size]
        most = 1 if rng.random() < mask.single_span_share else self._most[len(text)]
        lengths: list[int] = []
        covered = 0
        while not lengths or (covered < mask.coverage * len(text) and len(lengths) < most):
            length = min(bisect_left(self._law, rng.random()) + 1, mask.span_maximum_tokens, len(text))
            if lengths and covered + length + len(lengths) > len(text):
                break
            lengths.append(length)
            covered += length
        rng.shuffle(lengths)
        cells = sorted(rng.sample(range(len(text) - covered + 1), len(lengths)))
        spans, before = [], 0
        for cell, length in zip(cells, lengths, strict=True):
            spans.append((cell + before, cell + before + length))
            before += length
        context: list[int] = []
        targets: list[tuple[int, list[int]]] = []
        rest = 0
        for start, end in spans:
            context += text[rest:start]
            targets.append((len(context), text[start:end]))
            context.append(special.mask)
            rest = end
        context += text[rest:]
        rng.shuffle(targets)
        _add_context(row, context)
        for position, target in targets:
            row["tokens"] += [special.sop, *target]
            row["targets"] += [*target, special.eop]
            row["loss"] += [1] * (len(target) + 1)
            row["positions"] += [position] * (len(target) + 1)
            row["blocks"] += range(1, len(target) + 2)

    def _continue(self, row: dict[str, list[int]], rng: Random, text: list[int]) -> None:
        size = rng.randint(math.ceil(self._gmask.target_minimum_share * len(text)), len(text))
        prefix = len(text) - size
        _add_context(row, [*text[:prefix], self._special.gmask])
        row["tokens"] += [self._special.sop, *text[prefix:-1]]
        row["targets"] += text[prefix:]
        row["loss"] += [1] * size
        row["positions"] += range(prefix + 1, len(text) + 1)
        row["blocks"] += range(1, size + 1)


class PlainAnswers:
    """Rows of pairs of prompt and answer, each in slots of its own, the prompt cut at its end where it must be."""

    def __init__(self, corpus: Any, config: RunConfig, special: Any) -> None:
        self._corpus, self._special, self._length = corpus, special, config.data.sequence_length
        slot = self._length // config.objective.samples_per_row
        prompts, answers = (lengths.tolist() for lengths in corpus.pair_lengths())
        order = list(range(corpus.num_pairs))
        Random(0).shuffle(order)
        self._rows: list[list[tuple[int, int]]] = [[]]
        for pair in order:
            least = min(prompts[pair], slot // 4) + 2 + answers[pair]
            taken = math.ceil(least / slot) * slot
            if least > self._length:
                continue
            if sum(tokens for _, tokens in self._rows[-1]) + taken > self._length:
                self._rows.append([])
            self._rows[-1].append((pair, taken))

    def row(self, ordinal: int) -> dict[str, list[int]]:
        """As ``PlainRows.row``."""
        row, start = _empty_row(), 0
        for pair, taken in Random(ordinal).choice(self._rows):
            prompt, answer = (part.tolist() for part in self._corpus.pair(pair))
            prompt = prompt[: taken - 2 - len(answer)]
            _add_context(row, [*prompt, self._special.mask])
            row["tokens"] += [self._special.sop, *answer]
            row["targets"] += [*answer, self._special.eop]
            row["loss"] += [1] * (len(answer) + 1)
            row["positions"] += range(len(prompt) + 1, len(prompt) + len(answer) + 2)
            row["blocks"] += range(1, len(answer) + 2)
            start += taken
            _pad(row, start)
        _pad(row, self._length)
        return row


class PlainBatches:
    """From a sample's number to the tensors of a micro-batch of one row, in the shares of GLM-130B's mixture."""

    def __init__(self, text: PlainRows, answers: PlainAnswers, config: RunConfig) -> None:
        self._text, self._answers = text, answers
        self._instruction_share = config.objective.instruction_share.start
        self._mask_share = config.objective.mask_share.start

    def batch(self, number: int) -> dict[str, Tensor]:
        """int64 [1, 2048] and, of positions and block positions, [1, 2, 2048]; loss weights are float32."""
        rng = Random(number)
        if rng.random() < self._instruction_share:
            row = self._answers.row(number)
        else:
            row = self._text.row("mask" if rng.random() < self._mask_share else "gmask", number)
        weight = 1 / sum(row["loss"])
        return {
            "tokens": torch.tensor([row["tokens"]]),
            "targets": torch.tensor([row["targets"]]),
            "positions": torch.tensor([[row["positions"], row["blocks"]]]),
            "loss_weights": torch.tensor([[weight * counts for counts in row["loss"]]]),
        }


def _empty_row() -> dict[str, list[int]]:
    return {name: [] for name in ("tokens", "targets", "loss", "positions", "blocks")}


def _add_context(row: dict[str, list[int]], context: list[int]) -> None:
    row["tokens"] += context
    row["targets"] += context
    row["loss"] += [0] * len(context)
    row["positions"] += range(len(context))
    row["blocks"] += [0] * len(context)


def _pad(row: dict[str, list[int]], length: int) -> None:
    for values in row.values():
        values += [0] * (length - len(values))
