"""Other people's SentencePiece models: encoded as SentencePiece does, decoded to the right text."""

from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings

from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.tokenizers import vocabularies
from tests.unit.data.tokenizers.test_tokenizer import ANY_TEXT, TEXTS

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, **vocabularies.LOSSLESS},
    "unigram with NFKC": {"model_type": "unigram"},
    "unigram with NFKC and bytes": {"model_type": "unigram", "byte_fallback": True},
    "no space first": {"model_type": "unigram", "byte_fallback": True, "add_dummy_prefix": False},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> bytes:
    return vocabularies.sentence_pieces(**MODELS[request.param])


@pytest.fixture(scope="module")
def theirs(model: bytes) -> Any:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    return processor


@pytest.fixture(scope="module")
def ours(model: bytes) -> Tokenizer:
    return Tokenizer(model)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(text=ANY_TEXT)
def test_as_sentencepiece_does(ours: Tokenizer, theirs: Any, text: str) -> None:
    if theirs.is_byte(theirs.piece_to_id("<0x00>")):
        text = text.replace("\u2581", "_")  # which comes back of ours, and as a space of theirs
    tokens = ours.encode(text)
    assert tokens == theirs.encode(text)
    assert ours.encode_flat([text, text])[0].tolist() == tokens * 2
    if theirs.unk_id() not in tokens:  # which it shows by a sign of its own
        assert ours.decode(tokens) == theirs.decode(tokens)


def test_its_own_control_pieces_never_come_out_of_a_text(ours: Tokenizer, theirs: Any) -> None:
    control = {token for token in range(theirs.vocab_size()) if theirs.is_control(token)}
    assert len(control) == 2
    assert all(not control & set(ours.encode(text)) for text in TEXTS)
    assert ours.piece_bytes(theirs.eos_id()) == b"</s>"


def test_glms_special_tokens_follow_the_pieces(ours: Tokenizer, theirs: Any) -> None:
    assert ours.kind == "SentencePiece"
    assert ours.num_pieces == ours.special.first_id == theirs.vocab_size()
    assert ours.vocab_size == theirs.vocab_size() + 8


def test_parts_beside_a_blank_keep_their_spaces(ours: Tokenizer) -> None:
    prompt = "the [MASK] is a [MASK]."
    assert ours.decode(ours.encode_with_blanks(prompt)) == prompt


def test_its_sign_for_a_space_is_a_space_where_there_are_no_bytes() -> None:
    tokenizer = Tokenizer(vocabularies.sentence_pieces(model_type="unigram"))
    assert tokenizer.encode_with_blanks("the\u2581[MASK]") == tokenizer.encode_with_blanks("the [MASK]")
