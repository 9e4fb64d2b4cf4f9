"""Special tokens: GLM-130B's order and ids, and those that a vocabulary brings."""

from dataclasses import astuple

from glm130b.data.tokenizers.special_tokens import SpecialTokens


def test_after_the_pieces_of_icetk_stand_the_ids_of_glm_130b() -> None:
    special = SpecialTokens.after(150_000)
    assert (special.mask, special.gmask, special.smask) == (150_000, 150_001, 150_002)
    assert (special.eod, special.sop, special.eop) == (150_003, 150_004, 150_005)
    assert (special.enc, special.dblock) == (150_006, 150_007)
    assert special.first_id == 150_000


def test_every_special_token_has_its_own_name() -> None:
    special = SpecialTokens.after(10)
    names = special.names()
    assert list(names) == list(astuple(special))
    assert len(set(names.values())) == 8
    assert names[special.gmask] == "[gMASK]"
    assert special.blanks == {"[MASK]": 10, "[gMASK]": 11, "[sMASK]": 12}


def test_a_name_that_the_vocabulary_has_keeps_its_id_and_leaves_no_hole() -> None:
    special = SpecialTokens.after(100, {"[MASK]": 4, "<eod>": 7, "word": 50})
    assert (special.mask, special.eod) == (4, 7)
    assert (special.gmask, special.smask, special.sop, special.eop, special.enc, special.dblock) == tuple(
        range(100, 106)
    )
    assert special.first_id == 4
