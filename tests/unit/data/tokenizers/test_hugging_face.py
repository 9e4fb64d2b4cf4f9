"""Hugging Face tokenizer.json files: byte-level, LLaMA's kind, BERT's kind."""

import json
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from tokenizers import pre_tokenizers

from glm130b.data.tokenizers.hugging_face import _BYTE_OF
from glm130b.data.tokenizers.tokenizer import Tokenizer
from tests.unit.data.tokenizers import vocabularies
from tests.unit.data.tokenizers.test_tokenizer import ANY_TEXT


def theirs(content: bytes) -> Any:
    return tokenizers.Tokenizer.from_str(content.decode())


def test_the_byte_alphabet_is_the_librarys() -> None:
    assert sorted(_BYTE_OF) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(_BYTE_OF.values()) == list(range(256))
    assert [_BYTE_OF[character] for character in "A\u0120\u010a\u00e9"] == [0x41, 0x20, 0x0A, 0xE9]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(text=ANY_TEXT)
def test_plain_text_is_cut_as_the_library_does(byte_level: Tokenizer, text: str) -> None:
    tokens = byte_level.encode(text)
    assert tokens == LIBRARY.encode(text).ids
    assert byte_level.decode(tokens) == LIBRARY.decode(tokens)


LIBRARY = theirs(vocabularies.byte_level())


def test_special_tokens_follow_the_vocabulary(byte_level: Tokenizer) -> None:
    size = LIBRARY.get_vocab_size()
    assert byte_level.kind == "Hugging Face tokenizer.json"
    assert byte_level.special.first_id == byte_level.num_pieces == size
    assert byte_level.vocab_size == size + 8


def test_special_tokens_that_it_has_keep_their_ids() -> None:
    content = vocabularies.byte_level(special=("[MASK]", "<sop>"))
    tokenizer, size = Tokenizer(content), theirs(content).get_vocab_size()
    assert (tokenizer.special.mask, tokenizer.special.sop) == (1, 2)
    assert sorted(tokenizer.special.names()) == [1, 2, *range(size, size + 6)]
    assert tokenizer.vocab_size == size + 6
    assert tokenizer.num_pieces == size - 2
    text = "a [MASK] and <sop>, <|endoftext|>"
    assert not {0, 1, 2} & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_with_blanks("a [MASK]")[-1] == 1
    assert tokenizer.decode([1, 2]) == "[MASK]<sop>"


def test_a_glm_name_that_is_not_marked_special_is_no_special_token_in_a_text_either() -> None:
    content = json.loads(vocabularies.byte_level(special=("[MASK]",)))
    content["added_tokens"][1]["special"] = False
    tokenizer = Tokenizer(json.dumps(content).encode())
    assert tokenizer.special.mask == 1
    assert 1 not in tokenizer.encode("a [MASK]")


def test_a_vocabulary_with_holes_has_room_for_its_highest_id() -> None:
    content = json.loads(vocabularies.byte_level())
    vocabulary = content["model"]["vocab"]
    *_, last = vocabulary
    hole, vocabulary[last] = vocabulary[last], 1000
    tokenizer = Tokenizer(json.dumps(content).encode())
    assert tokenizer.special.first_id == 1001
    assert tokenizer.piece_bytes(1000) != b""
    assert tokenizer.piece_bytes(hole) == b""


def test_a_piece_that_spells_no_bytes_is_text() -> None:
    content = json.loads(vocabularies.byte_level())
    vocabulary = content["model"]["vocab"]
    *_, last = vocabulary
    vocabulary["中"] = vocabulary.pop(last)
    content["model"]["merges"].pop()
    tokenizer = Tokenizer(json.dumps(content).encode())
    assert tokenizer.piece_bytes(vocabulary["中"]) == "中".encode()


def test_an_added_token_may_be_plain_text() -> None:
    content = json.loads(vocabularies.byte_level())
    size = len(content["model"]["vocab"])
    added = {**content["added_tokens"][0], "id": size, "content": "<été >", "special": False}
    content["added_tokens"].append(added)
    tokenizer = Tokenizer(json.dumps(content).encode())
    assert tokenizer.encode("<été >") == [size]
    assert tokenizer.decode(tokenizer.encode("un <été > ")) == "un <été > "
    added["id"] = 1000
    with pytest.raises(
        ValueError, match=rf"^it says that its token <été > is 1000, and the library that it is {size}$"
    ):
        Tokenizer(json.dumps(content).encode())


def test_nothing_is_cut_padded_or_added() -> None:
    content = json.loads(vocabularies.byte_level())
    template = {"Sequence": {"id": "A", "type_id": 0}}
    token = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    content |= {
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [token, template],
            "pair": [token, template],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
        },
    }
    tokenizer = Tokenizer(json.dumps(content).encode())
    text = "of another length than four"
    assert tokenizer.encode(text) == LIBRARY.encode(text).ids


@pytest.mark.parametrize("shape", ["Prepend", "Metaspace", "old Metaspace", "byte level with a space first"])
def test_the_space_before_a_text_is_there_once_and_not_shown(shape: str) -> None:
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "split": False}
    content = {
        "Prepend": lambda: vocabularies.metaspace(),
        "Metaspace": lambda: vocabularies.metaspace(
            normalizer=None,
            pre_tokenizer={**metaspace, "prepend_scheme": "always"},
            decoder={
                "type": "Sequence",
                "decoders": [{**metaspace, "prepend_scheme": "always"}, {"type": "ByteFallback"}],
            },
        ),
        "old Metaspace": lambda: vocabularies.metaspace(
            normalizer=None,
            pre_tokenizer={"type": "Sequence", "pretokenizers": [{**metaspace, "add_prefix_space": True}]},
        ),
        "byte level with a space first": lambda: vocabularies.byte_level(
            pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        ),
    }[shape]()
    tokenizer = Tokenizer(content)
    for text in ("a", "the line", "two  lines\nof 中文 😀", "x" * 50):
        tokens = tokenizer.encode(text)
        assert tokens == theirs(content).encode(text).ids
        assert b"".join(map(tokenizer.piece_bytes, tokens)).decode() == " " + text
        assert tokenizer.decode(tokens) == text
    assert tokenizer.decode(tokenizer.encode_with_blanks("a [MASK]b [MASK]")) == "a [MASK]b [MASK]"
    after_a_blank = tokenizer.encode_with_blanks("[MASK]b")
    assert after_a_blank[-2:] == [tokenizer.special.mask, *tokenizer.encode_with_blanks("a[MASK]b")[-1:]]
    assert tokenizer.piece_bytes(after_a_blank[-1]) == b"b"


def test_word_pieces_show_as_words() -> None:
    tokenizer = Tokenizer(vocabularies.word_pieces())
    assert tokenizer.special.mask == 4
    assert tokenizer.decode(tokenizer.encode("Return the function")) == "return the function"
    assert 4 not in tokenizer.encode("the [MASK]")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"decoder": {"type": "CTC", "pad_token": "x", "word_delimiter_token": "|", "cleanup": True}},
            "its decoder CTC",
        ),
        (
            {"decoder": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": " "}},
            "its decoder replaces by a regular expression",
        ),
        ({"model": 3}, "is JSON but no tokenizer.json"),
    ],
)
def test_what_cannot_be_read_is_said(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        Tokenizer(vocabularies.byte_level(**changes))


def test_a_vocabulary_that_takes_a_special_token_for_a_word_is_refused() -> None:
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "[MASK]": 1, "a": 2}, "unk_token": "<unk>"},
    }
    with pytest.raises(ValueError, match=r"^it makes its token \[MASK\] of plain text$"):
        Tokenizer(json.dumps(content).encode())


def test_the_id_of_unknown_text_is_known_by_name_and_by_number() -> None:
    words = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}
    unigram = {"type": "Unigram", "vocab": [["a", -1.0], ["b", -1.0], ["<unk>", -9.0]], "unk_id": 2}
    for model, unknown in ((words, 1), (unigram, 2)):
        tokenizer = Tokenizer(json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode())
        assert tokenizer.unknown == unknown
        assert tokenizer.encode("\U00010400") == [unknown]
    assert Tokenizer(vocabularies.byte_level()).unknown is None
