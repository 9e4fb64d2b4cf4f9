"""Files of other people's kinds of vocabulary, small and made on the spot."""

import io
import json
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as protocol
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.unit.data.text_files import docstrings

SPACE = "\u2581"
ICETK_PIECES = 130_000


def texts() -> list[str]:
    return [f"{text}\n第{i}句话：今天读了{name}。" for i, (name, text) in enumerate(docstrings())]


def sentence_pieces(**options: Any) -> bytes:
    """A SentencePiece model as SentencePiece trains it, but for ``options``."""
    model = io.BytesIO()
    lines = [line for text in texts() for line in text.split("\n")]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        **{"vocab_size": 500, "hard_vocab_limit": False, **options},
    )
    return model.getvalue()


LOSSLESS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}


def llama_like() -> bytes:
    """Byte pairs, byte fallback, nothing normalised, a space before every text."""
    return sentence_pieces(model_type="bpe", byte_fallback=True, allow_whitespace_only_pieces=True, **LOSSLESS)


def icetk_like(**options: Any) -> bytes:
    """A model with the size of ice_text.model and the pieces that are known of it in their places."""
    options = {"model_type": "bpe", **(options or LOSSLESS)}
    proto = protocol.ModelProto.FromString(sentence_pieces(pad_id=3, user_defined_symbols=["<n>"], **options))
    known = {0: "<unk>", 1: "<s>", 2: "</s>", 3: "<pad>", 4: "<n>", 5: SPACE, 6: ",", 63_823: "。", 125_803: "α"}
    pieces = {piece.piece: piece for piece in proto.pieces}
    filler = protocol.ModelProto.SentencePiece
    for name in known.values():
        pieces.setdefault(name, filler(piece=name, score=-1000))
    placed = {index: pieces.pop(name) for index, name in known.items()}
    rest = iter(pieces.values())
    del proto.pieces[:]
    for index in range(ICETK_PIECES):
        unused = filler(piece=f"unused {index}", type=filler.UNUSED)
        proto.pieces.append(placed[index] if index in placed else next(rest, unused))
    return proto.SerializeToString()


def byte_level(special: tuple[str, ...] = (), **changes: Any) -> bytes:
    """A tokenizer.json of byte-level pairs as GPT-2's; ``changes`` are to its top-level keys."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        library,
        trainers.BpeTrainer(
            vocab_size=600,
            initial_alphabet=sorted(alphabet),
            special_tokens=["<|endoftext|>", *special],
            show_progress=False,
        ),
        changes,
    )


def metaspace(**changes: Any) -> bytes:
    """A tokenizer.json as LLaMA's: spaces shown, one before every text, bytes for unknown characters."""
    library = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    library.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    library.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *all_bytes], show_progress=False)
    content = json.loads(_trained(library, trainer, changes))
    content["added_tokens"] = content["added_tokens"][:1]  # the bytes are pieces, no special tokens
    return json.dumps(content).encode()


def word_pieces() -> bytes:
    """A tokenizer.json as BERT's, its [MASK] among the special tokens."""
    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    return _trained(library, trainer, {})


def _trained(library: Tokenizer, trainer: Any, changes: dict[str, Any]) -> bytes:
    library.train_from_iterator(texts(), trainer)
    return json.dumps({**json.loads(library.to_str()), **changes}).encode()
