"""What a tokenizer is and how it cuts a text: ``glm130b tokenizer show``."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from glm130b.data.tokenizers.tokenizer import Tokenizer


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b tokenizer show``."""
    parser.add_argument("model", type=Path, help="a SentencePiece model or a Hugging Face tokenizer.json")
    parser.add_argument("text", nargs="?", help="text to cut; [MASK], [gMASK] and [sMASK] in it are blanks")


def run(arguments: Namespace) -> int:
    """Print it."""
    tokenizer = Tokenizer.load(arguments.model)
    print(*_description(tokenizer), sep="\n")
    if arguments.text is not None:
        print(*_pieces(tokenizer, arguments.text), sep="\n")
    return 0


def _description(tokenizer: Tokenizer) -> Iterator[str]:
    yield f"kind         {tokenizer.kind}"
    yield f"pieces       {tokenizer.num_pieces:,}"
    yield f"vocabulary   {tokenizer.vocab_size:,} ids"
    yield "special      " + ", ".join(f"{name} {token}" for token, name in tokenizer.special.names().items())
    yield f"fingerprint  {tokenizer.fingerprint}"


def _pieces(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    tokens = tokenizer.encode_with_blanks(text)
    yield f"\n{len(tokens)} tokens"
    for token in tokens:
        piece = tokenizer.piece_bytes(token)
        try:
            shown = repr(piece.decode())
        except UnicodeDecodeError:
            shown = " ".join(f"{byte:02x}" for byte in piece)
        yield f"{token:>8}  {shown}"
    if (back := tokenizer.decode(tokens)) != text:
        yield f"these tokens give back another text: {back!r}"
