"""A sample as a person reads it: where its text stands, the context with its blanks, and what fills them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from glm130b.data.arrays import Int64Array
from glm130b.data.corpus.corpus import Corpus, Document
from glm130b.data.objectives.row import Row, Segment
from glm130b.data.tokenizers.tokenizer import Tokenizer


def describe(row: Row, *, corpus: Corpus, tokenizer: Tokenizer, width: int) -> Iterator[str]:
    """Lines that show every segment of a row; a text longer than ``width`` characters loses its middle, 0 shows
    all."""
    for number, (segment, origin) in enumerate(zip(row.segments, row.origins, strict=True), start=1):
        documents = corpus.documents(origin.start, origin.length)
        yield f"  {number}. {_places(documents)}"
        for label, text in _texts(row, segment, tokenizer):
            yield f"     {label:8}{_shortened(text, width)}"


def place(document: Document) -> str:
    """File and line of a document; its number where its corpus does not tell them."""
    where = f"{document.file}:{document.line}" if document.file else f"document {document.index}"
    return f"{where} (hash {document.text_hash})" if document.text_hash else where


def _places(documents: Sequence[Document]) -> str:
    """The first and the last few documents."""
    places = [place(document) for document in documents]
    if len(places) > 6:
        places[3:-3] = [f"... {len(places) - 6} more ..."]
    return ", ".join(places)


def _texts(row: Row, segment: Segment, tokenizer: Tokenizer) -> Iterator[tuple[str, str]]:
    """The context, its blanks numbered where there are several, and each target with the number of its blank."""
    split = segment.start + segment.context_length
    context, targets = row.tokens[segment.start : split], row.targets[split : segment.end]
    special = tokenizer.special
    blanks = np.flatnonzero(np.isin(context, (special.mask, special.smask, special.gmask)))
    yield "reads", "".join(_numbered(context, blanks, tokenizer))
    closed = np.flatnonzero(targets == special.eop) + 1
    # A target that is not closed by [eop] is the last: the text simply goes on, or the row's end cuts it.
    bounds = [0, *closed.tolist(), *([len(targets)] if len(targets) not in closed else [])]
    for first, end in pairwise(bounds):
        position = int(row.positions[split + first])
        number = int(np.searchsorted(blanks, position, side="right"))
        yield f"fills {number}" if len(blanks) > 1 else "fills", tokenizer.decode(targets[first:end].tolist())


def _numbered(context: Int64Array, blanks: Int64Array, tokenizer: Tokenizer) -> Iterator[str]:
    rest = 0
    for number, blank in enumerate(blanks.tolist(), start=1):
        name = tokenizer.special.names()[int(context[blank])]
        yield tokenizer.decode(context[rest:blank].tolist())
        yield f"{name[:-1]} {number}]" if len(blanks) > 1 else name
        rest = blank + 1
    yield tokenizer.decode(context[rest:].tolist())


def _shortened(text: str, width: int) -> str:
    """On one line, as Python would write it, without its middle if it is long."""
    shown = text if not width or len(text) <= width else f"{text[: width // 2]} ... {text[-(width // 2) :]}"
    return repr(shown)
