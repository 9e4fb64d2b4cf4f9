"""Turn text into a tokenised corpus: ``glm130b prepare``."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.data.preparation.inputs import Dataset, FieldPairs, Request
from glm130b.data.preparation.mip import load_mip
from glm130b.data.preparation.preparing import prepare
from glm130b.data.preparation.rendering import PlainPairs, Renderer
from glm130b.data.preparation.templates import TemplatedPairs, load_templates
from glm130b.data.reading.formats import SUFFIXES, files_left_out, find_files
from glm130b.data.reading.pieces import Reading

_MIB = 1 << 20
_SHOWN = 3


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b prepare``."""
    parser.add_argument("files", nargs="*", help=f"files, folders and globs; by suffix {SUFFIXES}")
    parser.add_argument("--tokenizer", required=True, type=Path, help="tokenizer's file")
    parser.add_argument("--output", required=True, type=Path, help="folder to write")
    parser.add_argument(
        "--validation-share", type=_share, default=0.02, help="share of the documents to hold out (0.02)"
    )
    parser.add_argument("--instructions", action="store_true", help="the files hold prompts and answers, not texts")
    parser.add_argument("--mip", type=Path, help="file that names many instruction datasets, instead of files here")
    parser.add_argument("--templates", type=Path, help="PromptSource's templates.yaml, which makes pairs of records")
    parser.add_argument("--text-field", default="text", help='field of a text ("text")')
    parser.add_argument("--inputs-field", help='field of a prompt ("inputs")')
    parser.add_argument("--targets-field", help='field of an answer ("targets")')
    parser.add_argument(
        "--plain-text", choices=("file", "line", "paragraph"), default="file", help="a document of a .txt file (file)"
    )
    parser.add_argument("--longest-document", type=_positive, default=4, help="in MiB; longer ones are rejected (4)")
    parser.add_argument(
        "--drop-duplicates", action="store_true", help="leave out texts that are equal to an earlier one"
    )
    parser.add_argument(
        "--reject-share", type=_share, default=0.0, help="share of bad documents that may be left out (0)"
    )
    parser.add_argument("--rejects", type=Path, help="file that names them (OUTPUT.rejected.jsonl)")
    parser.add_argument(
        "--workers", type=_positive, default=None, help="processes of 130 to 330 MiB (all cores); see docs/data.md"
    )


def run(arguments: Namespace) -> int:
    """Prepare one corpus and say in one line what it holds. Raises UserError."""
    folder: Path = arguments.output
    if folder.name in ("", ".."):
        raise UserError(f"--output {folder}: is not the name of a folder that can be replaced; name a new one")
    rejects = arguments.rejects or folder.with_name(f"{folder.name}.rejected.jsonl")
    try:
        manifest = prepare(
            _request(arguments),
            folder,
            rejects=rejects,
            reject_share=arguments.reject_share,
            num_workers=arguments.workers or len(os.sched_getaffinity(0)),
        )
    except OSError as error:
        where = error.filename or folder
        mend = "mend that or name another folder; the same command goes on where this one ended"
        raise UserError(f"--output {folder}: {where} cannot be written ({error.strerror}); {mend}") from error
    if manifest is None:
        print(f"{folder}: up to date")
        return 0
    held = [f"{split} {part.documents} documents {part.tokens} tokens" for split, part in manifest.splits.items()]
    left_out = {
        "duplicates": manifest.duplicates,
        "over a cap": manifest.capped,
        f"rejected (see {rejects})": sum(manifest.rejected.values()),
    }
    print(f"{folder}: {', '.join(held + [f'{count} {why}' for why, count in left_out.items() if count])}")
    if manifest.unknown:
        print(
            f"warning: {folder}: {manifest.unknown} documents hold text that the tokenizer does not know, and that is "
            "lost; take a tokenizer that writes unknown characters in bytes",
            file=sys.stderr,
        )
    for split in (split for split, part in manifest.splits.items() if not part.documents):
        print(
            f"warning: {folder}: no {split} documents, and training needs some; give more text or another share",
            file=sys.stderr,
        )
    return 0


def _renderer(arguments: Namespace) -> Renderer | None:
    """What makes pairs of the records; None for texts. Raises UserError."""
    fields = arguments.inputs_field, arguments.targets_field
    if arguments.templates:
        if any(fields):
            raise UserError(f"--templates {arguments.templates}: name the fields themselves; name none beside")
        return TemplatedPairs(load_templates(arguments.templates))
    if any(fields):
        return FieldPairs(fields[0] or "inputs", fields[1] or "targets")
    return PlainPairs() if arguments.instructions else None


def _request(arguments: Namespace) -> Request:
    """What the arguments ask for. Raises UserError."""
    renames = arguments.inputs_field, arguments.targets_field
    if arguments.mip:
        if arguments.files or arguments.templates or any(renames):
            raise UserError(f"--mip {arguments.mip}: names files, templates and fields itself; name no others")
        mip = load_mip(arguments.mip)
        if mip.notice:
            print(mip.notice, file=sys.stderr)
        _tell_left_out([dataset.path for dataset in mip.datasets])
        datasets = tuple(
            Dataset(name=it.name, files=it.files, renderer=it.renderer, cap=it.cap, weight=it.weight)
            for it in mip.datasets
        )
    else:
        if not arguments.files:
            raise UserError("glm130b prepare: no files; name some, or a file of instruction datasets with --mip")
        renderer = _renderer(arguments)
        _tell_left_out(arguments.files)
        datasets = (Dataset(name="", files=find_files(arguments.files), renderer=renderer),)
    return Request(
        kind="text" if datasets[0].renderer is None else "instructions",
        tokenizer=arguments.tokenizer,
        datasets=datasets,
        reading=Reading(
            text_field=arguments.text_field,
            plain_text=arguments.plain_text,
            longest_bytes=arguments.longest_document * _MIB,
        ),
        validation_share=arguments.validation_share,
        drop_duplicates=arguments.drop_duplicates,
    )


def _tell_left_out(words: Sequence[str]) -> None:
    if files := files_left_out(words):
        shown = ", ".join([str(file) for file in files[:_SHOWN]] + ["..."] * (len(files) > _SHOWN))
        print(f"left out {len(files)} files of unknown suffix ({shown}); known are {SUFFIXES}", file=sys.stderr)


def _share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (share := float(text)) < 1:
            return share
    raise ArgumentTypeError(f"{text} is no number from 0 up to, but without, 1")


def _positive(text: str) -> int:
    with suppress(ValueError):
        if (number := int(text)) >= 1:
            return number
    raise ArgumentTypeError(f"{text} is no whole number from 1 on")
