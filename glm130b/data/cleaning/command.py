"""Drop documents that are bad or nearly the same as an earlier one: ``glm130b clean``."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from glm130b.config.errors import UserError
from glm130b.data.cleaning.cleaning import beside, clean
from glm130b.data.cleaning.request import Cleaning
from glm130b.data.cleaning.thresholds import THRESHOLDS, FilterName, Language
from glm130b.data.reading.formats import SUFFIXES, find_files

_PACKAGES = ("datatrove", "jieba", "regex", "spacy")


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b clean``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=f"files, folders or globs of {SUFFIXES}")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder to write, for `prepare`")
    names = ",".join(get_args(FilterName))
    parser.add_argument("--filters", default="", metavar="NAMES", help=f"of {names}, in the order they are asked")
    parser.add_argument(
        "--near-duplicates", action="store_true", help="of documents that are nearly the same keep the first"
    )
    parser.add_argument(
        "--language", choices=get_args(Language), default="en", help="decides what a word is and what filters ask (en)"
    )
    parser.add_argument("--text-field", default="text", metavar="NAME", help="field with the text (text)")
    parser.add_argument(
        "--reject-share", type=_share, default=0.0, metavar="SHARE", help="of records that cannot be read (0)"
    )
    parser.add_argument("--keep-dropped", action="store_true", help="write FOLDER.dropped too, with the reasons")
    parser.add_argument(
        "--workers", type=_positive, default=os.cpu_count() or 1, metavar="N", help="processes (one a core)"
    )


def run(arguments: Namespace) -> int:
    """Clean, and say in one line what stayed."""
    filters = _filters(arguments.filters, arguments.language)
    if not filters and not arguments.near_duplicates:
        raise UserError("--filters and --near-duplicates: neither is given, so nothing would be dropped; give one")
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise UserError(f"glm130b clean needs {', '.join(missing)}; install them: pip install 'glm130b[clean]'")
    cleaning = Cleaning(
        files=find_files(arguments.files),
        filters=filters,
        near_duplicates=arguments.near_duplicates,
        language=arguments.language,
        text_field=arguments.text_field,
        keep_dropped=arguments.keep_dropped,
    )
    output: Path = arguments.output
    try:
        report = clean(cleaning, output, workers=arguments.workers, reject_share=arguments.reject_share)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror}); name another folder") from error
    except BrokenProcessPool as error:
        mend = "run the same command again to go on, with fewer --workers if memory was short"
        raise UserError(f"--workers {arguments.workers}: one of them was killed; {mend}") from error
    print(f"{output}: kept {report['kept']} of {report['read']} documents; {beside(output, 'report.json')} says why")
    return 0


def _filters(names: str, language: Language) -> tuple[FilterName, ...]:
    known = {str(name): name for name in get_args(FilterName)}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    problems = [
        f"--filters {name}: no such filter; name some of {','.join(known)}" for name in asked if name not in known
    ]
    problems += [
        f"--filters {name}: drops nearly all text in {language}; leave it out"
        for name in asked
        if name in known and name not in THRESHOLDS[language]
    ]
    problems += [f"--filters {name}: is named twice; name it once" for name in known if asked.count(name) > 1]
    if problems:
        raise UserError(problems)
    return tuple(known[name] for name in asked)


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) <= 1:
        raise ArgumentTypeError(f"{text} is not from 0 to 1")
    return share


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ArgumentTypeError(f"{text} is not 1 or more")
    return number
