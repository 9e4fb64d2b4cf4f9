"""Text to token ids and back: a vocabulary of any kind with GLM's special tokens."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from glm130b.config.errors import UserError, unreadable
from glm130b.data.arrays import Int32Array, Int64Array
from glm130b.data.tokenizers.hugging_face import HuggingFace
from glm130b.data.tokenizers.icetk import Icetk, is_icetk
from glm130b.data.tokenizers.sentence_pieces import SentencePieces
from glm130b.data.tokenizers.special_tokens import SpecialTokens
from glm130b.data.tokenizers.vocabulary import Vocabulary


class Tokenizer:
    """A vocabulary and GLM's special tokens, the same to everybody whatever the file.

    With a model of ``glm130b tokenizer train`` or a byte-level tokenizer.json every text comes back exactly,
    ``decode(encode(text)) == text``, and the unknown token never appears. Other files may normalise a text, and then
    it comes back as they left it. A tokenizer starts no threads.
    """

    def __init__(self, content: bytes) -> None:
        """``content`` is that of a SentencePiece model or of a tokenizer.json; raises ValueError when it is neither."""
        self._content = content
        self._vocabulary = _vocabulary(content)
        self.kind = self._vocabulary.kind
        """In words, for people."""
        self.special: SpecialTokens = self._vocabulary.special
        self.vocab_size = self._vocabulary.size
        """All ids are below this; the rows that a model's embedding must have at least."""
        self.unknown = self._vocabulary.unknown
        """The id of text that the vocabulary cannot write, which is lost; None when there is none."""
        self._special_names = {token: name.encode() for token, name in self.special.names().items()}
        self.num_pieces = self.vocab_size - len(self._special_names)
        """Ids that are no special tokens. Not in every layout are they the first ones."""
        self.fingerprint = hashlib.sha256(content).hexdigest()
        """SHA-256 of the file: prepared corpora carry it."""
        opening = self._vocabulary.encode("a")[:1]
        self._puts_space_first = any(self.piece_bytes(token).startswith(b" ") for token in opening)

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """The tokenizer of a SentencePiece model or a Hugging Face tokenizer.json. Raises UserError."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            mend = "make it with `glm130b tokenizer train --output ...` or mend the path"
            raise unreadable(f"tokenizer {path}", error, mend=mend) from None
        except ValueError as error:
            mend = "name a model of `glm130b tokenizer train`, another SentencePiece model or a tokenizer.json"
            raise UserError(f"tokenizer {path}: {error}; {mend}") from None

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes]]:
        """Another process makes its own: the libraries' objects do not all keep their settings on the way."""
        return Tokenizer, (self._content,)

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; names of special tokens in it are text like any other."""
        return self._vocabulary.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text."""
        return [self._vocabulary.encode(text) for text in texts]

    def encode_flat(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        """``encode`` of all texts, one behind the other, and how many ids each has: the fastest way on one core."""
        return self._vocabulary.encode_flat(texts)

    def encode_with_blanks(self, text: str) -> list[int]:
        """As ``encode``, but [MASK], [gMASK] and [sMASK] in the text are the special tokens: for prompts."""
        blanks = self.special.blanks
        first, *others = re.split("(" + "|".join(map(re.escape, blanks)) + ")", text)
        if not others:
            return self.encode(text)
        tokens = self._vocabulary.encode_part(first, is_first=True)
        for part in others:
            tokens += [blanks[part]] if part in blanks else self._vocabulary.encode_part(part, is_first=False)
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of the tokens; special tokens show as their names, ids of none and broken UTF-8 as U+FFFD.

        Where the vocabulary puts a space before every text, one space at the front goes.
        """
        pieces = (self._bytes[token] if 0 <= token < self.vocab_size else b"\xff" for token in tokens)
        text = b"".join(pieces).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self._puts_space_first else text

    def piece_bytes(self, token: int) -> bytes:
        """What an id below ``vocab_size`` adds to a text, in UTF-8: a special token its name. A character may be spread
        over several."""
        name = self._special_names.get(token)
        return self._vocabulary.piece_bytes(token) if name is None else name

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [self.piece_bytes(token) for token in range(self.vocab_size)]


def _vocabulary(content: bytes) -> Vocabulary:
    """By what the file says: JSON opens with a brace, and a SentencePiece model of any real vocabulary does not."""
    if content.lstrip(b" \t\r\n").startswith(b"{"):
        return HuggingFace(content)
    pieces = SentencePieces(content)
    return Icetk(content) if is_icetk(pieces) else pieces
