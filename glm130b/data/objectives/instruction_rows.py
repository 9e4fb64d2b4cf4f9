"""Instruction rows of one set, by how often the set was drawn from before."""

from glm130b.config.sections import RunConfig
from glm130b.data.corpus import Corpus
from glm130b.data.instructions import TargetPositions, instruction_sample, is_answer_cut
from glm130b.data.packing import pack
from glm130b.data.permutation import Permutation
from glm130b.data.row import Int64Array, Row
from glm130b.data.special_tokens import SpecialTokens


class InstructionRows:
    """Every pair of the set once an epoch, ``samples_per_row`` of them in a row, in another order each epoch."""

    def __init__(self, corpus: Corpus, config: RunConfig, *, source: str, split: str, special: SpecialTokens) -> None:
        self._corpus, self._source, self._special = corpus, source, special
        self._purpose = (config.seed, split, "instructions", source)
        self._samples_per_row = config.objective.samples_per_row
        self._slot_tokens = config.data.sequence_length // self._samples_per_row
        self._target_positions: TargetPositions = "at_mask" if config.model.has_block_positions else "after_mask"
        self.num_cut_answers = int(is_answer_cut(*corpus.pair_lengths(), slot_tokens=self._slot_tokens).sum())
        """Pairs whose answer does not fit beside a quarter slot of prompt."""

    def row(self, ordinal: int) -> Row:
        """The row for draw ``ordinal`` of this set; an epoch may end inside it."""
        first = ordinal * self._samples_per_row
        samples = [
            instruction_sample(
                *self._pair(position),
                slot_tokens=self._slot_tokens,
                special=self._special,
                target_positions=self._target_positions,
            )
            for position in range(first, first + self._samples_per_row)
        ]
        return pack(samples, slot_tokens=self._slot_tokens, objective="instruction", source=self._source)

    def _pair(self, position: int) -> tuple[Int64Array, Int64Array]:
        epoch, index = divmod(position, self._corpus.num_pairs)
        return self._corpus.pair(Permutation(self._corpus.num_pairs, *self._purpose, epoch).at(index))
