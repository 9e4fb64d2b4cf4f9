"""The layout of GLM-130B, on a model of ice_text.model's size with its known pieces in their places."""

import pytest
from sentencepiece import sentencepiece_model_pb2 as protocol

from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.tokenizers import vocabularies
from tests.unit.data.tokenizers.test_tokenizer import TEXTS

TAB, TWO_BLANKS, BYTES = 150_008, 150_009, 150_088


def test_the_layout(icetk: Tokenizer) -> None:
    assert icetk.kind == "SentencePiece in the layout of icetk"
    special = icetk.special
    assert (special.mask, special.gmask, special.smask, special.eod) == (150_000, 150_001, 150_002, 150_003)
    assert (special.sop, special.eop, special.enc, special.dblock) == (150_004, 150_005, 150_006, 150_007)
    assert icetk.vocab_size == 150_344
    assert icetk.piece_bytes(19_999) == b"<image_19999>"
    assert icetk.piece_bytes(20_002) == b"</s>"
    assert icetk.piece_bytes(20_004) == b"\n"
    assert icetk.piece_bytes(20_005) == b" "
    assert icetk.piece_bytes(83_823) == "。".encode()
    assert icetk.piece_bytes(TAB) == b"\t"
    assert [icetk.piece_bytes(TWO_BLANKS + n - 2) for n in range(2, 81)] == [b" " * n for n in range(2, 81)]
    assert [icetk.piece_bytes(BYTES + byte) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_white_space_has_its_own_tokens(icetk: Tokenizer) -> None:
    prefix, comma, newline = 20_005, 20_006, 20_004
    assert icetk.encode(",") == [prefix, comma]
    assert icetk.encode(",\n\t,") == [prefix, comma, newline, TAB, comma]
    assert icetk.encode(",  ," + " " * 80 + ",") == [prefix, comma, TWO_BLANKS, comma, TWO_BLANKS + 78, comma]
    assert icetk.encode("," + " " * 83 + ",")[2:] == [TWO_BLANKS + 78, TWO_BLANKS + 1, comma]
    assert icetk.encode("," + " " * 81 + ",")[2:] in ([TWO_BLANKS + 78, prefix, comma],)


def test_a_name_of_white_space_in_a_text_is_text(icetk: Tokenizer) -> None:
    less_than = BYTES + ord("<")
    for name in ("<n>", "<|tab|>", "<|blank_2|>", "<|blank_80|>"):
        tokens = icetk.encode(f",{name}\n")
        assert tokens[:3] == [20_005, 20_006, less_than]
        assert tokens[-1] == 20_004
        assert 20_004 not in tokens[:-1]
        assert max(token for token in tokens if token != less_than) < 150_000


def test_blanks_stand_as_in_glm_130b(icetk: Tokenizer) -> None:
    assert icetk.encode_with_blanks(", [MASK],") == [20_005, 20_006, 20_005, 150_000, 20_006]
    assert icetk.encode_with_blanks("[gMASK],") == [20_005, 150_001, 20_006]


def test_characters_without_a_piece_are_bytes(icetk: Tokenizer) -> None:
    assert icetk.encode(",😀")[2:] == [BYTES + byte for byte in "😀".encode()]


def test_what_the_model_normalises_stays_normalised() -> None:
    tokenizer = Tokenizer(vocabularies.icetk_like(normalization_rule_name="nmt_nfkc"))
    assert tokenizer.kind == "SentencePiece in the layout of icetk"
    assert tokenizer.decode(tokenizer.encode("Ｄｏ it,  ok?\n\n 好。 ")) == "Do it,  ok?\n\n 好。"
    for text in TEXTS:
        once = tokenizer.decode(tokenizer.encode(text))
        assert tokenizer.decode(tokenizer.encode(once)) == once


@pytest.mark.parametrize("change", ["one piece more", "another comma", "another alpha"])
def test_any_other_model_keeps_its_own_ids(change: str) -> None:
    proto = protocol.ModelProto.FromString(vocabularies.icetk_like())
    if change == "one piece more":
        proto.pieces.append(protocol.ModelProto.SentencePiece(piece="more", score=-1))
    else:
        proto.pieces[6 if change == "another comma" else 125_803].piece = "other"
    tokenizer = Tokenizer(proto.SerializeToString())
    assert tokenizer.kind == "SentencePiece"
    assert tokenizer.vocab_size == len(proto.pieces) + 8
