"""The words of ``glm130b clean``."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from glm130b.config.errors import UserError
from glm130b.data.cleaning import command


def problems(*words: str) -> tuple[str, ...]:
    """What a user is told about these words."""
    parser = ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(UserError) as caught:
        command.run(parser.parse_args(["missing.jsonl", "--output", "out", *words]))
    return caught.value.problems


def test_all_wrong_filters_are_named_at_once() -> None:
    assert problems("--filters", "c5,c4,fineweb,fineweb", "--language", "zh") == (
        "--filters c5: no such filter; name some of gopher-repetition,gopher-quality,c4,fineweb",
        "--filters c4: drops nearly all text in zh; leave it out",
        "--filters fineweb: is named twice; name it once",
    )


def test_there_must_be_something_to_do() -> None:
    assert problems()[0].startswith("--filters and --near-duplicates: neither is given")


def test_without_the_packages_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in ("datatrove", "spacy") else object())
    message = "glm130b clean needs datatrove, spacy; install them: pip install 'glm130b[clean]'"
    assert problems("--filters", "c4") == (message,)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason="needs the packages of glm130b[clean]")
    assert problems("--near-duplicates")[0].startswith("missing.jsonl: no file there")
