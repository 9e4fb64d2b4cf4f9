"""A SentencePiece model as a vocabulary: any model, byte-pair or unigram, whatever it does to spaces."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as protocol

from glm130b.data.arrays import Int32Array, Int64Array
from glm130b.data.tokenizers.special_tokens import SpecialTokens

# SentencePiece writes a space as this character, and would read the character back as a space.
SPACE_SYMBOL = "\u2581"


class SentencePieces:
    """The pieces of a SentencePiece model, and the special tokens after them.

    Encodes as SentencePiece does, the model's own normalisation included, with one exception: what a model with byte
    pieces would misread comes back too, because it is written in bytes. That is U+2581, and ``misread``.
    """

    kind = "SentencePiece"

    def __init__(self, model: bytes, *, write: Callable[[str], str] = str, misread: str | None = None) -> None:
        """``model`` is a serialised model; ``write`` changes a text before the model sees it, and ``misread`` is a
        pattern of single characters that would then mean something else. Raises ValueError when it is no model."""
        self._model, self._write = model, write
        self._processor = _processor(model)
        self.special = SpecialTokens.after(self._processor.vocab_size())
        self.unknown: int | None = self._processor.unk_id()  # with byte pieces no text has it
        self.size = self._processor.vocab_size() + len(self.special.names())
        # SentencePiece shows here what it does to spaces: one put first, those at the ends taken away.
        self._puts_space_first = self._processor.normalize("a").startswith(SPACE_SYMBOL)
        self._keeps_spaces = self._processor.normalize(" a ") == f"{SPACE_SYMBOL}a{SPACE_SYMBOL}"
        self._misread = re.compile(f"{SPACE_SYMBOL}|{misread}" if misread else SPACE_SYMBOL)
        self._has_bytes = self._processor.is_byte(self._processor.piece_to_id("<0x00>"))

    def encode(self, text: str) -> list[int]:
        if self._is_misread(text):
            return self.encode_part(text, is_first=True)
        return self._processor.encode(self._write(text))

    def encode_part(self, text: str, *, is_first: bool) -> list[int]:
        tokens: list[int] = []
        start, space = 0, " " if is_first and self._puts_space_first else ""
        for match in self._misread.finditer(text) if self._has_bytes else ():
            tokens += self._inner.encode(space + self._write(text[start : match.start()]))
            tokens += [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in match[0].encode()]
            start, space = match.end(), ""
        tokens += self._inner.encode(space + self._write(text[start:]))
        return tokens

    def encode_flat(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        arrays = self._processor.encode([self._write(text) for text in texts], return_type="numpy", num_threads=1)
        for index, text in enumerate(texts):
            if self._is_misread(text):
                arrays[index] = np.array(self.encode(text), dtype=np.int32)
        lengths = np.fromiter(map(len, arrays), dtype=np.int64, count=len(arrays))
        return np.concatenate([np.empty(0, dtype=np.int32), *arrays]), lengths

    def piece(self, token: int) -> str:
        """How the model writes a piece; empty above its pieces."""
        return self._processor.id_to_piece(token) if token < self._processor.vocab_size() else ""

    def piece_bytes(self, token: int) -> bytes:
        if self._processor.is_byte(token):
            return bytes([int(self.piece(token)[1:-1], 16)])
        return self.piece(token).replace(SPACE_SYMBOL, " ").encode()

    def _is_misread(self, text: str) -> bool:
        return self._has_bytes and self._misread.search(text) is not None

    @cached_property
    def _inner(self) -> sentencepiece.SentencePieceProcessor:
        """As the model, but it adds no space and takes none away: for a stretch of a text."""
        if self._keeps_spaces and not self._puts_space_first:
            return self._processor
        spec = protocol.NormalizerSpec(add_dummy_prefix=False, remove_extra_whitespaces=False)
        return _processor(_merged(self._model, protocol.ModelProto(normalizer_spec=spec)))


def with_pieces(model: bytes, *, control: Sequence[str], symbols: Sequence[str]) -> bytes:
    """The model with more pieces after its own: some that no text has, some that a text has word for word, and the
    256 bytes for characters that the model does not know."""
    kinds = protocol.ModelProto.SentencePiece
    pieces = [
        *(kinds(piece=name, score=0, type=kinds.CONTROL) for name in control),
        *(kinds(piece=name, score=0, type=kinds.USER_DEFINED) for name in symbols),
        *(kinds(piece=f"<0x{byte:02X}>", score=0, type=kinds.BYTE) for byte in range(256)),
    ]
    return _merged(model, protocol.ModelProto(pieces=pieces, trainer_spec=protocol.TrainerSpec(byte_fallback=True)))


def _merged(model: bytes, changes: protocol.ModelProto) -> bytes:
    """Protocol buffers, one behind the other, are one: lists are joined, later values count."""
    return model + changes.SerializeToString()


def _processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError:
        raise ValueError("is no SentencePiece model") from None
    return processor
