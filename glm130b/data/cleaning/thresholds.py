"""What a filter asks of a text, by language."""

from typing import Any, Literal

Language = Literal["en", "zh"]
FilterName = Literal["gopher-repetition", "gopher-quality", "c4", "fineweb"]

DATATROVE_LANGUAGE: dict[Language, str] = {"en": "eng_Latn", "zh": "cmn_Hani"}
"""Decides who finds the words: spaCy in English, jieba in Chinese."""

THRESHOLDS: dict[Language, dict[FilterName, dict[str, Any]]] = {
    # The library's own numbers, which are those of the papers: Gopher (Rae et al. 2021, appendix A.1.1), C4 (Raffel et
    # al. 2020, section 2.2), FineWeb (Penedo et al. 2024, section 3.6).
    "en": {"gopher-repetition": {}, "gopher-quality": {}, "c4": {}, "fineweb": {}},
    # FineWeb2 (Penedo et al. 2025) for Mandarin. It has no C4: that drops lines which do not end in . ! ? or a quote.
    "zh": {
        "gopher-repetition": {
            "dup_line_frac": 0.287,
            "dup_para_frac": None,
            "dup_line_char_frac": None,
            "dup_para_char_frac": None,
            "top_n_grams": ((2, 0.256), (3, 0.201), (4, 0.171)),
            "dup_n_grams": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.14), (10, 0.127)),
        },
        "gopher-quality": {
            "min_avg_word_length": 1,
            "max_avg_word_length": 5,
            "max_non_alpha_words_ratio": 0.735,
            "stop_words": list("的年在月是和日了於·為有被人中为他與後也而由"),
        },
        "fineweb": {
            "line_punct_thr": 0.106,
            "short_line_thr": 999,  # off
            "char_duplicates_ratio": 0.1,
            "new_line_ratio": 0.178,
        },
    },
}
"""Arguments of datatrove's filters; a filter that is not there does not suit the language."""
