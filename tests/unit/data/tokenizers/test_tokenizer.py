"""Every kind of tokenizer gives back every text, and shows what is no text."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm130b.config.errors import UserError
from glm130b.data.tokenizers.tokenizer import Tokenizer

TEXTS = (
    "",
    " ",
    "\n",
    "\0",
    "a\0b",
    "x\r\ny\r\n",
    "  two  spaces\tand a tab\t\n\n\n   ",
    "a" + " " * 79 + "b" + " " * 80 + "c" + " " * 81 + "d" + " " * 163,
    "def f(x):\n    return x\n\n\n        # deep\n",
    "std::vector<n> <|tab|> <|blank_2|><|blank_80|><|blank_81|> <n",
    "清华大学在北京。今天天气很好！",
    "mixed 中文 and English，标点。",
    "😀👩‍👩‍👧 🏳️‍🌈 \U0010ffff",
    "e\u0301 \u00e9 \ufb01 \u2126 \uff21",  # nothing is normalised
    "\u2581 \u2581\u2581 a\u2581b",  # SentencePiece's own sign for a space
    "\u2047 \u2585 <unk> <0x0A> <s> </s> <|endoftext|> <image_1>",
    "[MASK] [gMASK] <eod> <sop>are words here",
    "\x01\x02\x1b[0m\x7f\x85\u2028\u2029\u200b\ufeff",
)
CODE = st.text(alphabet=" \t\n(){}<|>_nblank=.:0128tab")
ANY_TEXT = (
    st.text()
    | st.text(alphabet=" \t\n\r\0a\u2581中.")
    | st.text(alphabet="😀👩\u200d🏳️\ufe0fé\u0301")
    | CODE
    | st.lists(st.sampled_from(["<n>", "<|tab|>", "<|blank_2|>", " " * 81, "\u2581", "[MASK]", "中", "\n", "a"])).map(
        "".join
    )
)


def check(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert all(0 <= token < tokenizer.vocab_size for token in tokens)
    assert not set(tokens) & set(tokenizer.special.names())


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(lossless: Tokenizer, text: str) -> None:
    check(lossless, text)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(text=ANY_TEXT)
def test_any_text_comes_back(lossless: Tokenizer, text: str) -> None:
    check(lossless, text)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(texts=st.lists(ANY_TEXT | st.sampled_from(TEXTS), max_size=6))
def test_a_batch_is_its_texts_one_by_one(lossless: Tokenizer, texts: list[str]) -> None:
    one_by_one = [lossless.encode(text) for text in texts]
    assert lossless.encode_batch(texts) == one_by_one
    flat, lengths = lossless.encode_flat(texts)
    assert (flat.dtype, lengths.dtype) == (np.int32, np.int64)
    assert lengths.tolist() == [len(tokens) for tokens in one_by_one]
    assert flat.tolist() == [token for tokens in one_by_one for token in tokens]


@pytest.mark.parametrize(
    "text", ["a [MASK] b[sMASK][gMASK]", "[MASK]", " [MASK] ", "中[gMASK]\n\n", "[MASK]<n> \u2581[MASK]"]
)
def test_blanks_of_a_prompt_are_special_tokens(lossless: Tokenizer, text: str) -> None:
    tokens = lossless.encode_with_blanks(text)
    names = lossless.special.names()
    blanks = [names[token] for token in tokens if token in names]
    assert "".join(blanks) == "".join(part + "]" for part in text.split("]")[:-1] for part in [part[part.index("[") :]])
    assert lossless.decode(tokens) == text


@settings(deadline=None, derandomize=True, max_examples=100)
@given(parts=st.lists(ANY_TEXT, max_size=4))
def test_any_prompt_comes_back(lossless: Tokenizer, parts: list[str]) -> None:
    text = "[MASK]".join(parts)
    assert lossless.decode(lossless.encode_with_blanks(text)) == text


def test_a_prompt_without_blanks_is_plain_text(lossless: Tokenizer) -> None:
    assert lossless.encode_with_blanks(" plain\n") == lossless.encode(" plain\n")


def test_our_own_models_never_need_the_unknown_token(tokenizer: Tokenizer) -> None:
    assert all(0 < token < tokenizer.num_pieces for text in TEXTS for token in tokenizer.encode(text))


def test_decoding_shows_special_tokens_and_survives_anything(lossless: Tokenizer) -> None:
    assert lossless.decode([lossless.special.eop, lossless.special.mask]) == "<eop>[MASK]"
    assert lossless.decode([lossless.vocab_size + 5, -1]) == "\ufffd\ufffd"
    half_a_character = lossless.encode("\U0010ffff")[:-1]
    assert "\ufffd" in lossless.decode(half_a_character)


def test_pieces_make_the_text(lossless: Tokenizer) -> None:
    """What a table of ``piece_bytes`` sees is what ``decode`` shows, but for a space before the text."""
    for text in TEXTS:
        pieces = b"".join(map(lossless.piece_bytes, lossless.encode(text))).decode()
        assert pieces in (text, " " + text)
    assert lossless.piece_bytes(lossless.special.eod) == b"<eod>"
    assert all(isinstance(lossless.piece_bytes(token), bytes) for token in range(lossless.vocab_size))


def test_sizes_and_fingerprint(tokenizer: Tokenizer, byte_level: Tokenizer) -> None:
    assert tokenizer.vocab_size == tokenizer.num_pieces + 8
    assert tokenizer.special.first_id == tokenizer.num_pieces
    assert len(tokenizer.fingerprint) == 64
    assert tokenizer.fingerprint != byte_level.fingerprint


def test_another_process_gets_the_same(lossless: Tokenizer) -> None:
    text = "a <|endoftext|> <n>\n\n\u2581"
    sent = pickle.loads(pickle.dumps(lossless))
    assert sent.encode(text) == lossless.encode(text)
    assert sent.fingerprint == lossless.fingerprint


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.model: cannot be read"):
        Tokenizer.load(tmp_path / "missing.model")
    for content, problem in (
        ("no model", "is no SentencePiece model"),
        ("", "is no SentencePiece model"),
        ("{", "is neither a SentencePiece model nor JSON"),
        ("{}", "is JSON but no tokenizer.json"),
        ('{"added_tokens": [{}]}', "is JSON but no tokenizer.json"),
    ):
        (tmp_path / "text.model").write_text(content)
        with pytest.raises(UserError, match=rf"^tokenizer .*text\.model: {problem}.*; name a model of `glm130b "):
            Tokenizer.load(tmp_path / "text.model")
