"""Self-supervised rows of one text corpus, by how often the corpus was drawn from before."""

import numpy as np

from glm130b.config.errors import UserError
from glm130b.config.sections import RunConfig
from glm130b.data.blank_infilling import gmask_sample, mask_sample
from glm130b.data.corpus import Corpus
from glm130b.data.packing import pack
from glm130b.data.permutation import Permutation
from glm130b.data.randomness import generator
from glm130b.data.row import Int64Array, Row
from glm130b.data.sample import Sample
from glm130b.data.spans import draw_spans, piece_tokens
from glm130b.data.special_tokens import SpecialTokens


class TextRows:
    """Every stretch of the corpus once an epoch, in another order and with other blanks each epoch.

    The token stream is cut into stretches of as many tokens as a [gMASK] row holds. The cut starts at another token
    in each epoch, so that the tokens left over at the ends are not always the same.
    """

    def __init__(self, corpus: Corpus, config: RunConfig, *, source: str, split: str, special: SpecialTokens) -> None:
        """Raises UserError if the corpus does not fill a row."""
        self._corpus, self._config, self._source, self._special = corpus, config, source, special
        self._purpose = (config.seed, split, "text", source)
        self._slot_tokens = config.data.sequence_length // config.objective.samples_per_row
        # Two-dimensional positions count inside a target in their second row, so the first stays at the blank.
        self._constant_positions = config.model.has_block_positions
        # [gMASK] and [sop] come on top; without [eop] the last token is only predicted, so that the row reads one
        # token less.
        self.tokens_per_row = config.data.sequence_length - 1 - config.objective.gmask.end_of_piece
        self.rows_per_epoch = corpus.num_tokens // self.tokens_per_row
        if not self.rows_per_epoch:
            raise UserError(
                f"the {split} split holds {corpus.num_tokens} tokens, less than one row of {self.tokens_per_row}; "
                "prepare more text, or write a smaller data.sequence_length"
            )

    def row(self, objective: str, ordinal: int) -> Row:
        """The row for draw ``ordinal`` of this corpus, with its blanks for ``mask`` or ``gmask``."""
        epoch, index = divmod(ordinal, self.rows_per_epoch)
        stretch = Permutation(self.rows_per_epoch, *self._purpose, epoch).at(index)
        left_over = self._corpus.num_tokens - self.rows_per_epoch * self.tokens_per_row
        first = int(generator(*self._purpose, epoch).integers(left_over + 1))
        text = self._corpus.read(first + stretch * self.tokens_per_row, self.tokens_per_row)
        rng = generator(*self._purpose, epoch, stretch)
        if objective == "gmask":
            samples, slot_tokens = [self._continuation(text, rng)], self._config.data.sequence_length
        else:
            samples, slot_tokens = self._fillings(text, rng), self._slot_tokens
        return pack(samples, slot_tokens=slot_tokens, objective=objective, source=self._source)

    def _continuation(self, text: Int64Array, rng: np.random.Generator) -> Sample:
        gmask = self._config.objective.gmask
        shortest = int(np.ceil(gmask.target_minimum_share * len(text)))
        target_length = int(rng.integers(shortest, len(text) + 1))
        return gmask_sample(
            text,
            prefix_length=len(text) - target_length,
            special=self._special,
            end_of_piece=gmask.end_of_piece,
            constant_positions=self._constant_positions,
        )

    def _fillings(self, text: Int64Array, rng: np.random.Generator) -> list[Sample]:
        """Consecutive pieces of the stretch; the room for blanks leaves tokens out, where is drawn."""
        mask, num_pieces = self._config.objective.mask, self._config.objective.samples_per_row
        longest = piece_tokens(self._slot_tokens, mask)
        first = int(rng.integers(len(text) - num_pieces * longest + 1))
        samples = []
        for start in range(first, first + num_pieces * longest, longest):
            piece = text[start : start + longest]
            if rng.random() < mask.short_text_share:
                length = int(rng.integers(min(mask.short_text_minimum_tokens, longest), longest + 1))
                piece = piece[int(rng.integers(longest - length + 1)) :][:length]
            spans = draw_spans(
                rng,
                num_tokens=len(piece),
                slot_tokens=self._slot_tokens,
                mask=mask,
                single=bool(rng.random() < mask.single_span_share),
            )
            order = rng.permutation(len(spans)).tolist()
            samples.append(mask_sample(piece, spans=spans, order=order, special=self._special))
        return samples
