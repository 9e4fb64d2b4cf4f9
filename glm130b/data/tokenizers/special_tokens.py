"""The tokens that stand beside a vocabulary's own pieces and give a sample its structure."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from itertools import count

_NAMES = ("[MASK]", "[gMASK]", "[sMASK]", "<eod>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")


@dataclass(frozen=True)
class SpecialTokens:
    """Token ids of GLM's special tokens.

    >>> SpecialTokens.after(150_000).eop
    150005
    """

    mask: int
    """A short blank inside a text."""
    gmask: int
    """A blank that is the rest of a text."""
    smask: int
    """A blank that is a sentence."""
    eod: int
    """End of a document."""
    sop: int
    """Start of a piece: opens every target."""
    eop: int
    """End of a piece: closes a target."""
    enc: int
    dblock: int

    @classmethod
    def after(cls, num_pieces: int, known: Mapping[str, int] | None = None) -> "SpecialTokens":
        """Specials in GLM-130B's order after the pieces of a tokenizer; icetk's 150,000 pieces give GLM-130B's ids.

        ``known`` are ids by name that a vocabulary has already: a special token among them keeps its id, the others
        follow one another after the pieces.
        """
        ids, known = count(num_pieces), known or {}
        return cls(*(known[name] if name in known else next(ids) for name in _NAMES))

    @property
    def first_id(self) -> int:
        """Smallest id; with ``after`` it is the number of pieces, unless a vocabulary had some of the names."""
        return min(self.names())

    @property
    def blanks(self) -> dict[str, int]:
        """Ids of the tokens that stand for missing text, by the names that a prompt gives them."""
        return {self.names()[token]: token for token in (self.mask, self.gmask, self.smask)}

    def names(self) -> dict[int, str]:
        """How each id is shown in decoded text."""
        return dict(zip(astuple(self), _NAMES, strict=True))
