"""What a kind of vocabulary offers to ``Tokenizer``."""

from collections.abc import Sequence
from typing import Protocol

from glm130b.data.arrays import Int32Array, Int64Array
from glm130b.data.tokenizers.special_tokens import SpecialTokens


class Vocabulary(Protocol):
    """Text to ids, and what each id stands for. No method starts a thread: who has many texts starts processes."""

    kind: str
    """In words, for people."""
    special: SpecialTokens
    size: int
    """Ids are from 0 to below this, special tokens included."""
    unknown: int | None
    """What stands for text that it cannot write; None when it has no such id."""

    def encode(self, text: str) -> list[int]:
        """Ids of a whole text. No special token is among them, whatever the text says."""
        ...

    def encode_part(self, text: str, *, is_first: bool) -> list[int]:
        """Ids of a stretch of a text with a special token before it, after it or both: its spaces there stay."""
        ...

    def encode_flat(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """``encode`` of all texts, one behind the other, and how many ids each has."""
        ...

    def piece_bytes(self, token: int) -> bytes:
        """What an id below ``size`` adds to a text, in UTF-8; it may be a part of a character. Not for special
        tokens."""
        ...
