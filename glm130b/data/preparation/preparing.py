"""Prepare a corpus: plan, tokenise, merge, and put it into its place; a run that was killed goes on where it was."""

import shutil
from contextlib import suppress
from pathlib import Path

from glm130b.config.errors import UserError
from glm130b.data.corpus.manifest import Inputs, Manifest, SourceFile
from glm130b.data.preparation.inputs import Request, blake2b
from glm130b.data.preparation.merging import merge, placed
from glm130b.data.preparation.planning import Cutting, Shard, plan_shards
from glm130b.data.preparation.progress import show_progress
from glm130b.data.preparation.rejects import write_rejects
from glm130b.data.preparation.shards import remove_all_but
from glm130b.data.preparation.tokenising import Job
from glm130b.data.preparation.workers import alone, tokenise_all
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.durable import sync_folder


def prepare(
    request: Request,
    folder: Path,
    *,
    rejects: Path,
    reject_share: float,
    num_workers: int,
    cutting: Cutting = Cutting(),  # noqa: B008 (it is frozen)
) -> Manifest | None:
    """Write the corpus; None if the folder holds it already. A folder prepared earlier is replaced at the end.

    Shards wait beside the folder, in ``.NAME.partial``, until the corpus is whole, so that the same command goes on
    after a kill or a bad document; of other inputs, those shards that are as before are taken. The corpus does not
    depend on ``num_workers`` nor on how often the run was killed. Raises UserError and OSError.
    """
    if folder.exists() and not (folder / "manifest.json").exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds something that is no prepared corpus; name another folder for --output")
    tokenizer = Tokenizer.load(request.tokenizer)
    inputs = _inputs(request, tokenizer)
    partial, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "replaced"))
    if is_up_to_date(folder, inputs, rejects=rejects, reject_share=reject_share):
        if partial.exists():  # of an attempt that failed or was killed; another that is at work keeps it
            with suppress(UserError, OSError), alone(partial):
                shutil.rmtree(replaced, ignore_errors=True)
                shutil.rmtree(partial)
        return None
    shards = plan_shards(request, fingerprint=tokenizer.fingerprint, cutting=cutting)
    merged = partial / "corpus"
    partial.mkdir(parents=True, exist_ok=True)
    with alone(partial):
        if replaced.exists() and not folder.exists():  # killed between the two renames at the end
            replaced.rename(folder)
        _tokenise(Job(request, partial / "shards"), shards, num_workers=num_workers)
        places = list(placed(shards, partial / "shards", request=request, vocab_size=tokenizer.vocab_size))
        write_rejects(places, rejects, allowed_share=reject_share)
        if not any(place.reader.summary.documents for place in places):
            raise UserError(f"{', '.join(map(str, request.files))}: no document in it; write some, as {request.kind}")
        shutil.rmtree(merged, ignore_errors=True)
        merged.mkdir()
        manifest = merge(places, request=request, inputs=inputs, output=merged, unknown=tokenizer.unknown)
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            folder.rename(replaced)
        merged.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(replaced, ignore_errors=True)
        shutil.rmtree(partial)
    return manifest


def is_up_to_date(folder: Path, inputs: Inputs, *, rejects: Path, reject_share: float) -> bool:
    """Whether the folder was made from these inputs, its files have their sizes, and what was rejected is no more than
    the share and written down. Contents are not read: that is ``glm130b verify``."""
    try:
        manifest = Manifest.read(folder)
    except UserError:
        return False
    bad = sum(manifest.rejected.values())
    are_rejects_fine = not bad or (bad <= reject_share * manifest.records and rejects.exists())
    return manifest.inputs == inputs and are_rejects_fine and not manifest.damaged_files(folder)


def _tokenise(job: Job, shards: list[Shard], *, num_workers: int) -> None:
    """Make the shards that are not there yet. Raises UserError with every file that cannot be read to its end."""
    job.folder.mkdir(exist_ok=True)
    wanted = {shard.key: shard for shard in shards}  # of equal files of equal datasets there is one
    remove_all_but(job.folder, set(wanted))
    missing = [shard for shard in wanted.values() if not (job.folder / shard.key).exists()]
    total, left = (sum(shard.work for shard in some) for some in (wanted.values(), missing))
    with show_progress(total_bytes=total, done_bytes=total - left) as advance:
        problems = tokenise_all(job, missing, num_workers=num_workers, advance=advance)
    if problems:
        raise UserError(problems)


def _inputs(request: Request, tokenizer: Tokenizer) -> Inputs:
    """All that the corpus depends on. Raises UserError with every file that cannot be read."""
    problems, files = [], []
    for file in request.files:
        try:
            status = file.stat()
            files.append(SourceFile(path=str(file), bytes=status.st_size, mtime_ns=status.st_mtime_ns))
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror}); name a file with documents")
    if problems:
        raise UserError(problems)
    reading = request.reading
    return Inputs(
        kind=request.kind,
        tokenizer=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        eod=tokenizer.special.eod,
        options={
            "validation_share": request.validation_share,
            "drop_duplicates": request.drop_duplicates,
            "text_field": reading.text_field,
            "plain_text": reading.plain_text,
            "longest_bytes": reading.longest_bytes,
            "datasets": [
                {
                    "name": dataset.name,
                    "files": len(dataset.files),
                    "cap": dataset.cap,
                    "weight": dataset.weight,
                    "renderer": blake2b(repr(dataset.renderer).encode()).hex(),
                }
                for dataset in request.datasets
            ],
        },
        files=tuple(files),
    )
