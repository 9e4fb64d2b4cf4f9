"""A Hugging Face ``tokenizer.json`` as a vocabulary."""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import tokenizers

from glm130b.data.arrays import Int32Array, Int64Array
from glm130b.data.tokenizers.special_tokens import SpecialTokens

_DECODERS = {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
_PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + index): byte for index, byte in enumerate(sorted(set(range(256)).difference(_PRINTABLE)))
}
"""How byte-level vocabularies write bytes (GPT-2): one printable character each."""


class HuggingFace:
    """The ids of a tokenizer.json; GLM's special tokens keep theirs where it has them and follow it where not.

    Text is text: its own special tokens never come out of one, and no template adds any. What it normalises, and spaces
    that its kind of model drops, do not come back; a byte-level vocabulary gives back every text.
    """

    kind = "Hugging Face tokenizer.json"

    def __init__(self, content: bytes) -> None:
        """``content`` is the file. Raises ValueError with what is wrong."""
        try:
            self._config: dict[str, Any] = json.loads(content)
        except ValueError:
            raise ValueError("is neither a SentencePiece model nor JSON") from None
        self._library = _library(self._config)
        ids: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self._pieces = {token: piece for piece, token in ids.items()}
        above = max(self._pieces, default=-1) + 1
        self.special = SpecialTokens.after(above, ids)
        self.size = max(above, *(token + 1 for token in self.special.names()))
        model = self._config["model"]
        name = model.get("unk_token")
        self.unknown: int | None = self._library.token_to_id(name) if name else model.get("unk_id")  # Unigram: by id
        self._added = {token["id"] for token in self._config.get("added_tokens") or ()}
        self._decoders = _flat(self._config.get("decoder"))
        self._check()

    def encode(self, text: str) -> list[int]:
        return self._library.encode(text, add_special_tokens=False).ids

    def encode_part(self, text: str, *, is_first: bool) -> list[int]:
        return (self._library if is_first else self._inner).encode(text, add_special_tokens=False).ids

    def encode_flat(self, texts: Sequence[str]) -> tuple[Int32Array, Int64Array]:
        batch = [self.encode(text) for text in texts]  # the library's own batch starts threads
        lengths = np.fromiter(map(len, batch), dtype=np.int64, count=len(batch))
        return np.fromiter(chain.from_iterable(batch), dtype=np.int32, count=int(lengths.sum())), lengths

    def piece_bytes(self, token: int) -> bytes:
        piece = self._pieces.get(token, "")  # a vocabulary may leave ids out
        return piece.encode() if token in self._added else _decoded(piece, self._decoders)

    @cached_property
    def _inner(self) -> tokenizers.Tokenizer:
        """As the library, but without the space that some vocabularies put before a text."""
        steps = {name: _without_prefix(self._config.get(name)) for name in ("normalizer", "pre_tokenizer")}
        return _library({**self._config, **steps})

    def _check(self) -> None:
        decoders = {step["type"] for step in self._decoders}
        known = f"known are {', '.join(sorted(_DECODERS))}"
        problems = [f"its decoder {name} is unknown here, {known}" for name in sorted(decoders - _DECODERS)]
        problems += [
            f"its decoder replaces by a regular expression, {step['pattern']}"
            for step in self._decoders
            if step["type"] == "Replace" and "String" not in step["pattern"]
        ]
        problems += [
            f"it says that its token {token['content']} is {token['id']}, and the library that it is {given}"
            for token in self._config.get("added_tokens") or ()
            if (given := self._library.token_to_id(token["content"])) != token["id"]
        ]
        problems += [
            f"it makes its token {name} of plain text"
            for token, name in self.special.names().items()
            if token in self.encode(name)
        ]
        if problems:
            raise ValueError("; ".join(problems))


def _library(config: dict[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer, with nothing cut, padded or read as a special token. Raises ValueError."""
    glm_names = set(SpecialTokens.after(0).names().values())
    try:
        added = [
            {**token, "special": token["special"] or token["content"] in glm_names}
            for token in config.get("added_tokens") or ()
        ]
        library = tokenizers.Tokenizer.from_str(
            json.dumps({**config, "added_tokens": added, "truncation": None, "padding": None})
        )
    except Exception as error:  # the library raises no narrower one
        raise ValueError(f"is JSON but no tokenizer.json ({error})") from None
    library.encode_special_tokens = True  # their names in a text are text
    return library


def _flat(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [inner for outer in step["decoders"] for inner in _flat(outer)] if step["type"] == "Sequence" else [step]


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    """A normalizer or pre-tokenizer of a config, so that it puts no space before a text."""
    if step is None:
        return None
    match step["type"]:
        case "Sequence":
            (parts,) = step.keys() - {"type"}  # "normalizers" or "pretokenizers"
            return {**step, parts: [_without_prefix(inner) for inner in step[parts]]}
        case "Prepend":
            return {"type": "Sequence", "normalizers": []}
        case "Metaspace":
            kept = {key: step[key] for key in step.keys() - {"add_prefix_space"}}  # what older files say
            return {**kept, "prepend_scheme": "never"}
        case "ByteLevel":
            return {**step, "add_prefix_space": False}
    return step


def _decoded(piece: str, decoders: list[dict[str, Any]]) -> bytes:
    """A piece as the decoders spell it inside a text; what they drop from the whole text's ends is still there."""
    if not decoders:
        return b" " + piece.encode()  # the library sets spaces between pieces then
    for step in decoders:
        match step["type"]:
            case "ByteLevel" if _BYTE_OF.keys() >= set(piece):
                return bytes(_BYTE_OF[character] for character in piece)
            case "ByteFallback" if re.fullmatch("<0x[0-9A-F]{2}>", piece):
                return bytes([int(piece[1:-1], 16)])
            case "Replace":
                piece = piece.replace(step["pattern"]["String"], step["content"])
            case "Metaspace":
                piece = piece.replace(step["replacement"], " ")
            case "WordPiece":
                piece = piece.removeprefix(step["prefix"]) if piece.startswith(step["prefix"]) else f" {piece}"
            case "BPEDecoder":
                piece = piece.replace(step["suffix"], " ")
    return piece.encode()
