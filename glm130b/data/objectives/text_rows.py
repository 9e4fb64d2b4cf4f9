"""Self-supervised rows of one text corpus, by how often the corpus was drawn from before."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from glm130b.config.errors import UserError
from glm130b.config.sections import MaskConfig, RunConfig
from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.corpus import Corpus, Document
from glm130b.data.mixing.permutation import Permutation
from glm130b.data.mixing.randomness import generator
from glm130b.data.objectives.blank_infilling import continuation_row, infilling_row
from glm130b.data.objectives.cutting import cut_slots
from glm130b.data.objectives.pieces import Pieces, Room, Stretch
from glm130b.data.objectives.row import Row
from glm130b.data.objectives.sentences import Sentences, most_sentences
from glm130b.data.objectives.spans import draw_spans, most_spans, uniform
from glm130b.data.tokenizers.special_tokens import SpecialTokens


class TextRows:
    """Every stretch of the corpus once an epoch, in another order and with other blanks each epoch.

    The token stream is cut into stretches of as many tokens as a [gMASK] row of one document holds. The cut starts at
    another token in each epoch, so that the tokens left over at the ends are not always the same.

    With ``config.data.isolate_documents`` each document of a stretch is a sample of its own, however short: of one
    token, such as an [eod] that the cut left alone, that token is the target. With ``config.data.with_replacement``
    the stretch of each row is drawn among all, as the original did.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: RunConfig,
        *,
        source: str,
        split: str,
        special: SpecialTokens,
        sentences: Sentences,
    ) -> None:
        """Raises UserError if the corpus does not fill a row."""
        self._corpus, self._config, self._source, self._special = corpus, config, source, special
        self._purpose = (config.seed, split, "text", source)
        length, objective = config.data.sequence_length, config.objective
        # [gMASK] and [sop] come on top; without [eop] the last token is only predicted, so that the row reads one
        # token less.
        self._continued = Room(1, length, length, [0, *range(2 + objective.gmask.end_of_piece, length + 1)])
        self.tokens_per_row = len(self._continued.needed) - 1
        self.rows_per_epoch = corpus.num_tokens // self.tokens_per_row
        if not self.rows_per_epoch:
            raise UserError(
                f"the {split} split holds {corpus.num_tokens} tokens, less than one row of {self.tokens_per_row}; "
                "prepare more text, or write a smaller data.sequence_length"
            )
        self._slot_tokens = length // objective.samples_per_row
        self._blanked = {
            name: _Blanked.of(most_by_length(self._slot_tokens, objective.mask), objective.samples_per_row)
            for name, most_by_length in (("mask", most_spans), ("smask", most_sentences))
        }
        if (text_tokens := objective.mask.text_tokens) is not None:
            self._blanked = dict.fromkeys(
                self._blanked, _Blanked.cut(text_tokens, objective.mask, objective.samples_per_row)
            )
        self._sentences = sentences

    def row(self, objective: str, ordinal: int) -> Row:
        """The row for draw ``ordinal`` of this corpus, with its blanks for ``mask``, ``smask`` or ``gmask``."""
        epoch, index = divmod(ordinal, self.rows_per_epoch)
        rng = generator(*self._purpose, epoch, index)
        stretch = self._stretch(rng, epoch, index)
        return self._continuation(rng, stretch) if objective == "gmask" else self._infilling(rng, stretch, objective)

    def drawn_for(self, document: Document, *, epoch: int) -> Iterator[int]:
        """Draws of an epoch, counted from its first, whose stretch holds some of a document."""
        left_over = self._corpus.num_tokens - self.rows_per_epoch * self.tokens_per_row
        first, permutation = _order(self._purpose, epoch, self.rows_per_epoch, left_over)
        start, last = ((token - first) // self.tokens_per_row for token in (document.start, document.end - 1))
        stretches = range(max(start, 0), min(last, self.rows_per_epoch - 1) + 1)
        if self._config.data.with_replacement:
            for index in range(self.rows_per_epoch):
                if int(generator(*self._purpose, epoch, index).integers(self.rows_per_epoch)) in stretches:
                    yield index
        else:
            yield from map(permutation.index_of, stretches)

    def _stretch(self, rng: np.random.Generator, epoch: int, index: int) -> Stretch:
        left_over = self._corpus.num_tokens - self.rows_per_epoch * self.tokens_per_row
        first, permutation = _order(self._purpose, epoch, self.rows_per_epoch, left_over)
        is_drawn = self._config.data.with_replacement
        number = int(rng.integers(self.rows_per_epoch)) if is_drawn else permutation.at(index)
        start, length = first + number * self.tokens_per_row, self.tokens_per_row
        ends = [length]
        if self._config.data.isolate_documents:
            ends = [*(self._corpus.document_starts(start, length) - start).tolist(), length]
        return Stretch(start, self._corpus.read(start, length), ends)

    def _continuation(self, rng: np.random.Generator, stretch: Stretch) -> Row:
        gmask = self._config.objective.gmask
        pieces = self._continued.lay_out(rng, stretch.ends)
        shortest = np.ceil(gmask.target_minimum_share * pieces.length).astype(np.int64)
        return continuation_row(
            stretch,
            pieces,
            target_lengths=uniform(rng, shortest, pieces.length),
            room=self._continued,
            special=self._special,
            end_of_piece=gmask.end_of_piece,
            # Two-dimensional positions count inside a target in their second row, so the first stays at the blank.
            constant_positions=self._config.model.has_block_positions,
            source=self._source,
        )

    def _infilling(self, rng: np.random.Generator, stretch: Stretch, objective: str) -> Row:
        mask, (room, most_blanks) = self._config.objective.mask, self._blanked[objective]
        pieces = _shortened(rng, room.lay_out(rng, stretch.ends), mask)
        is_single = rng.random(len(pieces.length)) < mask.single_span_share
        most = np.where(is_single, 1, most_blanks[pieces.length])
        if objective == "smask":
            spans = self._sentences.draw_spans(rng, stretch, pieces, most=most, coverage=mask.coverage)
        else:
            spans = draw_spans(rng, num_tokens=pieces.length, most=most, mask=mask)
        row = infilling_row(
            stretch,
            pieces,
            spans,
            order=(rng.random(len(spans.piece)) + spans.piece).argsort(),
            room=room,
            special=self._special,
            objective=objective,
            source=self._source,
        )
        return row if mask.text_tokens is None else cut_slots(row, wide=room.slot_tokens, slot_tokens=self._slot_tokens)


class _Blanked(NamedTuple):
    """How much text with blanks goes into a row."""

    room: Room
    most_blanks: Int64Array
    """Blanks that a piece of 0, 1, 2.. tokens may have."""

    @classmethod
    def of(cls, most_blanks: Int64Array, num_slots: int) -> "_Blanked":
        """Slots that have room for every target: each blank adds itself and an [sop]."""
        slot_tokens = len(most_blanks) - 1
        needed = (np.arange(len(most_blanks)) + 2 * most_blanks).tolist()
        return cls(Room(num_slots, slot_tokens, slot_tokens, [0, *needed[1:]]), most_blanks)

    @classmethod
    def cut(cls, text_tokens: int, mask: MaskConfig, num_slots: int) -> "_Blanked":
        """Slots that hold so many tokens of text, and are wide enough for what will be cut off."""
        most_blanks = np.ceil(mask.coverage * np.arange(text_tokens + 1)).astype(np.int64)
        return cls(Room(num_slots, 3 * text_tokens, text_tokens, range(text_tokens + 1)), most_blanks)


@lru_cache(maxsize=256)
def _order(purpose: tuple[int | str, ...], epoch: int, num_rows: int, left_over: int) -> tuple[int, Permutation]:
    """What all rows of an epoch share: the first token of the first stretch, and the order of the stretches."""
    return int(generator(*purpose, epoch).integers(left_over + 1)), Permutation(num_rows, *purpose, epoch)


def _shortened(rng: np.random.Generator, pieces: Pieces, mask: MaskConfig) -> Pieces:
    """A few of the pieces shortened to any length from the minimum on, wherever in them."""
    is_shortened = rng.random(len(pieces.length)) < mask.short_text_share
    if not is_shortened.any():
        return pieces
    shortest = np.where(is_shortened, np.minimum(mask.short_text_minimum_tokens, pieces.length), pieces.length)
    length = uniform(rng, shortest, pieces.length)
    return Pieces(pieces.start + uniform(rng, np.zeros_like(length), pieces.length - length), length, pieces.slot)
