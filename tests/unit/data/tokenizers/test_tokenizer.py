"""The tokenizer gives back every text, and shows what is no text."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.tokenizer import Tokenizer

TEXTS = (
    "",
    " ",
    "\n",
    "\0",
    "a\0b",
    "x\r\ny\r\n",
    "  two  spaces\tand a tab\t\n\n\n   ",
    "def f(x):\n    return x\n\n\n        # deep\n",
    "清华大学在北京。今天天气很好！",
    "mixed 中文 and English，标点。",
    "😀👩‍👩‍👧 🏳️‍🌈 \U0010ffff",
    "e\u0301 \u00e9 \ufb01 \u2126 \uff21",  # nothing is normalised
    "\u2581 \u2581\u2581 a\u2581b",  # SentencePiece's own sign for a space
    "\u2047 \u2585 <unk> <0x0A> <s> </s>",
    "[MASK] [gMASK] <eod> are words here",
    "\x01\x02\x1b[0m\x7f\x85\u2028\u2029\u200b\ufeff",
)


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 < token < tokenizer.num_pieces for token in tokens)  # neither the unknown token, 0, nor a special one


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.text() | st.text(alphabet=" \t\n\r\0a\u2581中."))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 < token < tokenizer.num_pieces for token in tokens)


def test_a_batch_is_its_texts_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_blanks_of_a_prompt_are_special_tokens(tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    tokens = tokenizer.encode_with_blanks("a [MASK] b[sMASK][gMASK]")
    assert [token for token in tokens if token >= tokenizer.num_pieces] == [special.mask, special.smask, special.gmask]
    assert tokenizer.decode(tokens) == "a [MASK] b[sMASK][gMASK]"
    assert tokenizer.encode_with_blanks("plain") == tokenizer.encode("plain")


def test_decoding_shows_special_tokens_and_survives_anything(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([tokenizer.special.eop, tokenizer.special.mask]) == "<eop>[MASK]"
    assert tokenizer.decode([tokenizer.vocab_size + 5]) == "\ufffd"
    half_a_character = tokenizer.encode("\U0010ffff")[:2]
    assert "\ufffd" in tokenizer.decode(half_a_character)


def test_sizes_and_fingerprint(tokenizer: Tokenizer, folder: Path) -> None:
    assert tokenizer.vocab_size == tokenizer.num_pieces + 8
    assert tokenizer.special.first_id == tokenizer.num_pieces
    assert tokenizer.fingerprint == Tokenizer((folder / "tokenizer.model").read_bytes()).fingerprint
    assert len(tokenizer.fingerprint) == 64


def test_a_missing_or_foreign_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.model: cannot be read"):
        Tokenizer.load(tmp_path / "missing.model")
    (tmp_path / "text.model").write_text("no model")
    with pytest.raises(UserError, match=r"text\.model: is no SentencePiece model"):
        Tokenizer.load(tmp_path / "text.model")
