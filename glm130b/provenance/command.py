"""``glm130b samples``: which documents a step of a run reads, and which steps read a document."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from pathlib import Path

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import CheckpointFolder
from glm130b.config.derived import data_parallel_size, data_rank
from glm130b.config.errors import UserError
from glm130b.config.load import load_config
from glm130b.config.sections import RunConfig
from glm130b.data.batches import micro_batch_ranges
from glm130b.data.dataset import GLMDataset
from glm130b.data.mixing.era import Era, continued
from glm130b.data.tokenizers.tokenizer import Tokenizer
from glm130b.provenance.finding import readings
from glm130b.provenance.reading import describe, place
from glm130b.training.schedules import Schedules


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of ``glm130b samples``."""
    parser.add_argument("config", help="a file of configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the config")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--step", type=int, metavar="N", help="show what this step reads; the first is 0")
    asked.add_argument(
        "--find", type=_text_hash, metavar="TEXT-HASH", help="show where a document stands and which steps read it"
    )
    parser.add_argument("--rank", type=int, metavar="R", help="of the step, only what this process reads")
    parser.add_argument("--world-size", type=int, metavar="N", help="processes of the job, where parallel.data is open")
    parser.add_argument("--width", type=int, default=200, help="characters of each text; 0 shows all (200)")


def run(arguments: Namespace) -> int:
    """Print what is asked for, line by line as it is found."""
    config = load_config(arguments.config, arguments.overrides, world_size=arguments.world_size)
    schedules, eras = _continued(config)
    rows = GLMDataset.open(config, split="train", eras=eras)
    lines = _step(schedules, rows, arguments) if arguments.step is not None else _found(schedules, rows, arguments.find)
    for line in lines:
        print(line)
    return 0


def _text_hash(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{32}", text.lower()):
        raise ArgumentTypeError(f"{text} is no text hash, which has 32 hex digits; --step shows hashes")
    return text.lower()


def _continued(config: RunConfig) -> tuple[Schedules, tuple[Era, ...]]:
    """The steps of the run and how they are mixed: up to its newest checkpoint as they were, then with this config."""
    newest = CheckpointFolder(Path(config.folder) / config.name / "checkpoints").latest()
    if newest is None:
        return Schedules(config), (Era.of(config),)
    description = Description.read(newest)
    progress = description.progress
    schedules = Schedules(config, description.interventions, progress)
    return schedules, continued(description.eras, config, samples=progress.samples)


def _step(schedules: Schedules, rows: GLMDataset, arguments: Namespace) -> Iterator[str]:
    config, step = schedules.config, arguments.step
    first, end = schedules.levels[0].first_step, schedules.num_steps
    if not first <= step < end:
        raise UserError(f"--step {step}: the steps known of the run are {first} .. {end - 1}; name one of them")
    samples = range(schedules.samples_at(step), schedules.samples_at(step + 1))
    shown = samples if arguments.rank is None else list(_of_rank(config, samples, arguments))
    yield f"step {step} takes samples {samples.start} .. {samples.stop - 1}"
    if schedules.is_skipped(step):
        yield f"it is passed over ({_why_skipped(schedules, step)}): nothing is learned from them"
    tokenizer = Tokenizer.load(config.data.tokenizer)
    for sample in shown:
        draw, row = rows.mixture.locate(sample), rows[sample]
        yield f"sample {sample}: {draw.objective}, data.{draw.section}.{draw.source}, draw {draw.ordinal}"
        corpus = rows.sources.corpora[draw.section, draw.source]
        yield from describe(row, corpus=corpus, tokenizer=tokenizer, width=arguments.width)


def _why_skipped(schedules: Schedules, step: int) -> str:
    for each in schedules.interventions:
        if each.skip and step in range(each.skip.from_step, each.skip.until_step):
            return f"by the stability guard: {each.reason}"
    return "data.skip_steps"


def _of_rank(config: RunConfig, samples: range, arguments: Namespace) -> Iterator[int]:
    """Those of a step's samples that a process of the job reads."""
    parallel = config.parallel
    if not isinstance(parallel.data, int) and arguments.world_size is None:
        raise UserError("--rank: parallel.data is open; add --world-size, or set parallel.data")
    data_size = data_parallel_size(config, arguments.world_size or 0)
    processes = parallel.tensor * parallel.pipeline * data_size
    if not 0 <= arguments.rank < processes:
        raise UserError(f"--rank {arguments.rank}: the job has processes 0 .. {processes - 1}; name one of them")
    of_rank = micro_batch_ranges(
        samples,
        micro_size=config.batch.micro_size,
        data_rank=data_rank(config, arguments.rank, data_size=data_size),
        data_size=data_size,
    )
    return (sample for micro_batch in of_rank for sample in micro_batch)


def _step_of(schedules: Schedules, sample: int) -> str:
    if sample < schedules.levels[0].first_sample:
        return "a step that is not known"
    step = schedules.step_at(sample)
    return f"step {step}{' (passed over)' if schedules.is_skipped(step) else ''}"


def _found(schedules: Schedules, rows: GLMDataset, text_hash: str) -> Iterator[str]:
    """Every document with the hash, and the samples of the run that hold some of it."""
    found, num_samples = False, schedules.config.train_samples
    for (section, name), corpus in rows.sources.corpora.items():
        for document in corpus.find(text_hash):
            found = True
            yield f"data.{section}.{name}: {place(document)}, {document.length} tokens"
            for sample in readings(rows, section, name, document, num_samples=num_samples):
                yield f"  sample {sample} of {_step_of(schedules, sample)}"
    if not found:
        raise UserError(
            f"--find {text_hash}: no training document has this hash; --step shows hashes, and held-out documents are "
            "never trained on"
        )
