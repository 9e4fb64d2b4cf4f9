"""The tokens that stand above a tokenizer's own pieces and give a sample its structure."""

from dataclasses import astuple, dataclass

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
    def after(cls, num_pieces: int) -> "SpecialTokens":
        """Specials in GLM-130B's order after the pieces of a tokenizer; icetk's 150,000 pieces give GLM-130B's ids."""
        return cls(*range(num_pieces, num_pieces + len(_NAMES)))

    @property
    def first_id(self) -> int:
        """Smallest id; with ``after`` it is the number of pieces."""
        return min(self.names())

    def names(self) -> dict[int, str]:
        """How each id is shown in decoded text."""
        return dict(zip(astuple(self), _NAMES, strict=True))
