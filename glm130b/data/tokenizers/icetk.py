"""The vocabulary of GLM-130B: icetk's ids around the SentencePiece model ``ice_text.model``.

The ids, from icetk's and GLM-130B's published tokenizers:

    0 .. 19,999          codes of icetk's image tokenizer; no text has them
    20,000 .. 149,999    the 130,000 pieces of ice_text.model; </s>, the end of a text, is 20,002
    150,000 .. 150,007   GLM's special tokens
    150,008              a tab
    150,009 .. 150,087   2 .. 80 spaces
    150,088 .. 150,343   the 256 bytes, for characters without a piece
"""

import re
from collections.abc import Sequence

from glm130b.data.arrays import Int32Array, Int64Array
from glm130b.data.tokenizers.sentence_pieces import SPACE_SYMBOL, SentencePieces, with_pieces
from glm130b.data.tokenizers.special_tokens import SpecialTokens

_NUM_IMAGES = 20_000
_NUM_TEXT_PIECES = 130_000
_LONGEST_BLANK = 80
_LANDMARKS = {0: "<unk>", 2: "</s>", 3: "<pad>", 5: SPACE_SYMBOL, 6: ",", 63_823: "。", 125_803: "α"}
"""Pieces whose ids icetk documents, without the 20,000 images."""

_SYMBOLS = {"\n": "<n>", "\t": "<|tab|>"} | {" " * n: f"<|blank_{n}|>" for n in range(2, _LONGEST_BLANK + 1)}
"""White space and the piece that stands for it."""


def is_icetk(pieces: SentencePieces) -> bool:
    """Whether a SentencePiece model is icetk's ice_text.model.

    It is when it has exactly 130,000 pieces and icetk's own at seven places from the first to the last thousands. No
    other model has both by chance; one that did would have been made to be read like icetk's.
    """
    return pieces.special.first_id == _NUM_TEXT_PIECES and all(
        pieces.piece(token) == piece for token, piece in _LANDMARKS.items()
    )


class Icetk:
    """icetk's text half, as GLM-130B used it.

    Newlines, tabs and runs of spaces have tokens of their own, and text that looks like the name of such a token comes
    back as it was (GLM-130B's own program made white space of it). Characters without a piece are written in bytes.
    What ice_text.model itself normalises stays normalised: full-width forms become plain ones, and one space at
    either end of a text goes.
    """

    kind = "SentencePiece in the layout of icetk"

    def __init__(self, model: bytes) -> None:
        """``model`` is a serialised SentencePiece model that ``is_icetk``."""
        self.special = SpecialTokens.after(_NUM_IMAGES + _NUM_TEXT_PIECES)
        names = list(self.special.names().values())
        extended = with_pieces(model, control=names, symbols=[name for name in _SYMBOLS.values() if name != "<n>"])
        self._pieces = SentencePieces(extended, write=_write, misread=r"<(?=n>|\|tab\|>|\|blank_\d+\|>)")
        self.unknown: int | None = None  # characters without a piece are written in bytes
        self.size = _NUM_IMAGES + self._pieces.special.first_id
        self._white_space = {name: text.encode() for text, name in _SYMBOLS.items()}

    def encode(self, text: str) -> list[int]:
        return [_NUM_IMAGES + token for token in self._pieces.encode(text)]

    def encode_part(self, text: str, *, is_first: bool) -> list[int]:
        return [_NUM_IMAGES + token for token in self._pieces.encode_part(text, is_first=is_first)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        flat, lengths = self._pieces.encode_flat(texts)
        return flat + _NUM_IMAGES, lengths

    def piece_bytes(self, token: int) -> bytes:
        if token < _NUM_IMAGES:
            return f"<image_{token}>".encode()
        token -= _NUM_IMAGES
        return self._white_space.get(self._pieces.piece(token), self._pieces.piece_bytes(token))


def _write(text: str) -> str:
    text = text.replace("\n", _SYMBOLS["\n"]).replace("\t", _SYMBOLS["\t"])
    return re.sub(f" {{2,{_LONGEST_BLANK}}}", lambda run: _SYMBOLS[run[0]], text)
