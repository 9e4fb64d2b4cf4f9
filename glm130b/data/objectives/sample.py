"""One context with its targets: what an objective makes of a text, and what rows are packed of."""

from dataclasses import dataclass

from glm130b.data.arrays import BoolArray, Int64Array


@dataclass(frozen=True)
class Sample:
    """Context tokens, then target tokens; every array has the length of both.

    ``targets`` holds what is predicted at each token; on the context, where there is no loss, it repeats the tokens.
    ``positions`` and ``block_positions`` count from the start of the sample.
    """

    tokens: Int64Array
    targets: Int64Array
    loss_mask: BoolArray
    positions: Int64Array
    block_positions: Int64Array
    context_length: int

    def __len__(self) -> int:
        return len(self.tokens)
