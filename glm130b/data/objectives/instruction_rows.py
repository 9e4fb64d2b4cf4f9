"""Instruction rows of one set, by how often the set was drawn from before."""

from collections.abc import Iterator, Sequence

import numpy as np

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.corpus import Corpus, Document
from glm130b.data.mixing.permutation import Permutation
from glm130b.data.mixing.randomness import generator
from glm130b.data.objectives.instructions import TargetPositions, instruction_sample, tokens_taken
from glm130b.data.objectives.next_fit import next_fit
from glm130b.data.objectives.row import Origin, Row, Segment
from glm130b.data.objectives.sample import Sample
from glm130b.data.tokenizers.special_tokens import SpecialTokens

_PIECE = 1 << 16  # pairs ordered at a time, few enough for a processor's cache


class InstructionRows:
    """Every pair of the set once an epoch: laid into rows once, and the rows in another order each epoch.

    The pairs stand in one random order, and each row takes the next of them that fit (next-fit). Nothing but the bounds
    of the rows is kept, eight bytes a row.
    """

    def __init__(self, corpus: Corpus, config: RunConfig, *, source: str, split: str, special: SpecialTokens) -> None:
        """Raises UserError if no pair fits a row."""
        self._corpus, self._source, self._special = corpus, source, special
        self._purpose = (config.seed, split, "instructions", source)
        self._with_replacement = config.data.with_replacement
        self._packing = config.objective.instruction.packing
        self._long_prompts_keep = config.objective.instruction.long_prompts_keep
        self._row_tokens = config.data.sequence_length
        self._slot_tokens = self._row_tokens // config.objective.samples_per_row
        self._target_positions: TargetPositions = "at_mask" if config.model.has_block_positions else "after_mask"
        self._order = Permutation(corpus.num_pairs, *self._purpose, "order")
        self.num_left_out = 0
        """Pairs whose answer fits no row beside a quarter slot of prompt; they are never drawn."""
        self._bounds = next_fit(self._taken_in_order(), capacity=self._row_tokens)
        self.rows_per_epoch = len(self._bounds) - 1
        if not self.rows_per_epoch:
            raise UserError(
                f"none of the {corpus.num_pairs} answers of the {split} split fits a row of {self._row_tokens} tokens; "
                "write a larger data.sequence_length, or give shorter answers"
            )

    def row(self, ordinal: int) -> Row:
        """The row for draw ``ordinal`` of this set."""
        if self._with_replacement:
            index = self._drawn(ordinal)
        else:
            epoch, index = divmod(ordinal, self.rows_per_epoch)
            index = Permutation(self.rows_per_epoch, *self._purpose, epoch).at(index)
        indices = self._order(np.arange(self._bounds[index], self._bounds[index + 1])).tolist()
        pairs = [self._corpus.pair(pair) for pair in indices]
        taken = self._tokens_taken(*(np.array([len(part) for part in parts]) for parts in zip(*pairs, strict=True)))
        placed = zip(indices, pairs, taken.tolist(), strict=True)
        drawn = [(index, pair, tokens) for index, pair, tokens in placed if tokens]
        return row_of_samples(
            [self._sample(*pair, slot_tokens=tokens) for _, pair, tokens in drawn],
            slots=[tokens for *_, tokens in drawn],
            origins=[Origin(self._corpus.pair_start(index), sum(map(len, pair))) for index, pair, _ in drawn],
            row_tokens=self._row_tokens,
            source=self._source,
        )

    def _sample(self, prompt: Int64Array, answer: Int64Array, *, slot_tokens: int) -> Sample:
        return instruction_sample(
            prompt,
            answer,
            slot_tokens=slot_tokens,
            special=self._special,
            target_positions=self._target_positions,
            long_prompts_keep=self._long_prompts_keep,
        )

    def drawn_for(self, document: Document, *, epoch: int) -> Iterator[int]:
        """Draws of an epoch, counted from its first, whose row may hold the pair that a document is."""
        place = self._order.index_of(document.index)
        index = int(np.searchsorted(self._bounds, place, side="right")) - 1
        if self._with_replacement:
            draws = range(epoch * self.rows_per_epoch, (epoch + 1) * self.rows_per_epoch)
            yield from (draw - draws.start for draw in draws if self._drawn(draw) == index)
        elif 0 <= index < self.rows_per_epoch:
            yield Permutation(self.rows_per_epoch, *self._purpose, epoch).index_of(index)

    def _drawn(self, ordinal: int) -> int:
        """The row that a draw with replacement takes."""
        return int(generator(*self._purpose, ordinal).integers(self.rows_per_epoch))

    def _tokens_taken(self, prompt_lengths: Int64Array, answer_lengths: Int64Array) -> Int64Array:
        return tokens_taken(
            prompt_lengths,
            answer_lengths,
            packing=self._packing,
            slot_tokens=self._slot_tokens,
            row_tokens=self._row_tokens,
        )

    def _taken_in_order(self) -> Iterator[Int64Array]:
        """Tokens that each pair takes, in the order of the pairs, piece by piece; counts those that are left out."""
        prompt_lengths, answer_lengths = self._corpus.pair_lengths()
        for first in range(0, self._corpus.num_pairs, _PIECE):
            indices = self._order(np.arange(first, min(first + _PIECE, self._corpus.num_pairs)))
            taken = self._tokens_taken(prompt_lengths[indices], answer_lengths[indices])
            self.num_left_out += int((taken == 0).sum())
            yield taken


def row_of_samples(
    samples: Sequence[Sample], *, slots: Sequence[int], origins: Sequence[Origin], row_tokens: int, source: str
) -> Row:
    """A row of ``row_tokens`` with each sample at the start of its slot; ``slots`` are their tokens, side by side.

    Raises ValueError if a sample is longer than its slot, or the slots than the row: nothing is ever cut here.
    """
    tokens, targets, positions, block_positions = np.zeros((4, row_tokens), np.int64)
    loss_mask = np.zeros(row_tokens, np.bool_)
    segments, start = [], 0
    for sample, slot_tokens in zip(samples, slots, strict=True):
        if len(sample) > slot_tokens or start + slot_tokens > row_tokens:
            raise ValueError(f"a sample of {len(sample)} tokens does not fit a slot of {slot_tokens} at token {start}")
        place = slice(start, start + len(sample))
        tokens[place], targets[place], loss_mask[place] = sample.tokens, sample.targets, sample.loss_mask
        positions[place], block_positions[place] = sample.positions, sample.block_positions
        segments.append(Segment(start, sample.context_length, len(sample) - sample.context_length))
        start += slot_tokens
    return Row(
        tokens=tokens,
        targets=targets,
        loss_mask=loss_mask,
        positions=positions,
        block_positions=block_positions,
        segments=tuple(segments),
        objective="instruction",
        source=source,
        origins=tuple(origins),
    )
