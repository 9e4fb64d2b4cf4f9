"""Thresholds that datatrove's filters take."""

import pytest

from glm130b.data.cleaning.thresholds import DATATROVE_LANGUAGE, THRESHOLDS, FilterName, Language

pytest.importorskip("datatrove", reason="needs the packages of glm130b[clean]")


@pytest.mark.parametrize(
    ("language", "name"), [(language, name) for language in THRESHOLDS for name in THRESHOLDS[language]]
)
def test_every_filter_of_every_language_can_be_made(language: Language, name: FilterName) -> None:
    from glm130b.data.cleaning.stages import FILTERS

    made = FILTERS[name](language=DATATROVE_LANGUAGE[language], **THRESHOLDS[language][name])
    for threshold, value in THRESHOLDS[language][name].items():
        name_there = "short_line_threshold" if threshold == "short_line_thr" else threshold
        assert getattr(made, name_there) == (set(value) if threshold == "stop_words" else value)
