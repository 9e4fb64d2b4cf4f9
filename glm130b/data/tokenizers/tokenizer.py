"""Text to token ids and back: a SentencePiece model with GLM's special tokens above its pieces."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from glm130b.config.errors import UserError
from glm130b.data.special_tokens import SpecialTokens

# SentencePiece writes a space as this character, and would read the character back as a space.
_SPACE_SYMBOL = "\u2581"


class Tokenizer:
    """A SentencePiece model and the special tokens after its pieces.

    With a model of ``glm130b tokenizer`` every text comes back exactly: ``decode(encode(text)) == text``, and the
    unknown token never appears.
    """

    def __init__(self, model: bytes) -> None:
        """``model`` is a serialised SentencePiece model; raises RuntimeError when it is not."""
        self._processor = sentencepiece.SentencePieceProcessor()
        self._processor.LoadFromSerializedProto(model)
        self.num_pieces: int = self._processor.vocab_size()
        self.special = SpecialTokens.after(self.num_pieces)
        self.vocab_size = self.num_pieces + len(self.special.names())
        """Pieces and special tokens; the rows that a model's embedding must have at least."""
        self.fingerprint = hashlib.sha256(model).hexdigest()
        """SHA-256 of the model file: prepared corpora carry it."""
        self._bytes = [self._piece_bytes(piece) for piece in range(self.num_pieces)]
        self._special_bytes = {token: name.encode() for token, name in self.special.names().items()}
        self._space_symbol = [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE_SYMBOL.encode()]
        blanks = (self.special.mask, self.special.gmask, self.special.smask)
        self._blanks = {self.special.names()[token]: token for token in blanks}

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a SentencePiece model file. Raises UserError."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            mend = "make it with `glm130b tokenizer --output ...` or mend the path"
            raise UserError(f"tokenizer {path}: cannot be read ({error.strerror}); {mend}") from None
        except RuntimeError:
            mend = "name a model file made by `glm130b tokenizer`"
            raise UserError(f"tokenizer {path}: is no SentencePiece model; {mend}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; names of special tokens in it are text like any other."""
        first, *others = text.split(_SPACE_SYMBOL)
        tokens: list[int] = self._processor.encode(first)
        for part in others:
            tokens += self._space_symbol + self._processor.encode(part)
        return tokens

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text, by all cores together."""
        batch: list[list[int]] = self._processor.encode(list(texts))
        for index, text in enumerate(texts):
            if _SPACE_SYMBOL in text:
                batch[index] = self.encode(text)
        return batch

    def encode_with_blanks(self, text: str) -> list[int]:
        """As ``encode``, but [MASK], [gMASK] and [sMASK] in the text are the special tokens: for prompts."""
        parts = re.split("(" + "|".join(map(re.escape, self._blanks)) + ")", text)
        return [
            token for part in parts for token in ([self._blanks[part]] if part in self._blanks else self.encode(part))
        ]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens; special tokens show as their names, ids above them and broken UTF-8 as U+FFFD."""
        pieces = (
            self._bytes[token] if 0 <= token < self.num_pieces else self._special_bytes.get(token, b"\xff")
            for token in tokens
        )
        return b"".join(pieces).decode("utf-8", errors="replace")

    def _piece_bytes(self, piece: int) -> bytes:
        text: str = self._processor.id_to_piece(piece)
        if self._processor.is_byte(piece):
            return bytes([int(text[1:-1], 16)])
        return text.replace(_SPACE_SYMBOL, " ").encode()
