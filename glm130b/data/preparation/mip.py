"""A multi-task mixture in one file: datasets by task, where they lie, how they are asked, how much each gives."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from glm130b.config.errors import UserError
from glm130b.config.section import Section
from glm130b.config.yaml_dialect import parse
from glm130b.data.preparation.few_shot import Variant, VariedPairs, Wording
from glm130b.data.preparation.rendering import PlainPairs, Renderer
from glm130b.data.preparation.templates import TemplatedPairs, load_templates
from glm130b.data.reading.formats import find_files


class DatasetConfig(Section):
    """One dataset of a task."""

    path: str | None
    """File, folder or glob of its training records, relative to the working directory; null leaves the dataset out."""
    templates: str | None = None
    """PromptSource's templates.yaml for it; null takes records that hold their pair: {inputs, targets} or {instruction,
    input, output}."""
    templates_per_record: Literal["one", "all"] | None = None
    """null takes that of the file."""
    cap: int | None = Field(default=None, ge=1)
    """Most pairs of it; null takes that of the task."""
    weight: float = Field(default=1.0, gt=0)
    """How often each of its pairs stands in the corpus, against the other datasets."""
    variants: tuple[Variant, ...] | None = None
    """Few-shot and reasoning variants; null takes those of the file."""


class TaskConfig(Section):
    """Datasets that ask for the same thing."""

    cap: int = Field(default=100_000, ge=1)
    """Most pairs of each dataset."""
    datasets: dict[str, DatasetConfig]


class MipConfig(Section):
    """A file for ``glm130b prepare --mip``."""

    templates_per_record: Literal["one", "all"] = "one"
    """Each record by one template that is drawn by it, or by every template."""
    variants: tuple[Variant, ...] | None = None
    """How pairs are put; null puts each as its record or template has it."""
    wording: Wording = Wording()
    tasks: dict[str, TaskConfig]


@dataclass(frozen=True)
class MipDataset:
    """A dataset whose files are there."""

    name: str
    """Task and dataset, ``summarization/xsum``."""
    path: str
    """What names its files."""
    files: tuple[Path, ...]
    renderer: Renderer
    cap: int
    weight: float


@dataclass(frozen=True)
class Mip:
    """What a file asks for, in its order."""

    datasets: tuple[MipDataset, ...]
    skipped: tuple[str, ...]
    """Names of datasets without a path."""

    @property
    def notice(self) -> str | None:
        """What to tell the user about datasets that are left out, in one line."""
        if not self.skipped:
            return None
        return f"datasets without a path are left out ({len(self.skipped)}): {', '.join(self.skipped)}"


def load_mip(path: Path) -> Mip:
    """The datasets of a file, with the files and templates that they name.

    Raises UserError with all problems at once: of the file, or else of every dataset.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason}); configs/mip/glm-130b.yaml is an example") from None
    config = _validated(parse(text, origin=str(path)), origin=str(path))
    problems: list[str] = []
    datasets, skipped = [], []
    for task_name, task in config.tasks.items():
        for name, dataset in task.datasets.items():
            if dataset.path is None:
                skipped.append(f"{task_name}/{name}")
                continue
            try:
                datasets.append(_dataset(f"{task_name}/{name}", dataset, task=task, config=config))
            except UserError as error:
                problems += [f"{path}: tasks.{task_name}.datasets.{name}.{problem}" for problem in error.problems]
    if not datasets and not problems:
        problems.append(f"{path}: no dataset has a path; write for one of them where its records lie")
    if problems:
        raise UserError(problems)
    return Mip(tuple(datasets), tuple(skipped))


def _dataset(name: str, dataset: DatasetConfig, *, task: TaskConfig, config: MipConfig) -> MipDataset:
    """Raises UserError for files that are not there and templates that cannot be used, together."""
    path = dataset.path or ""
    problems: list[str] = []
    files: tuple[Path, ...] = ()
    renderer: Renderer = PlainPairs()
    try:
        files = find_files([path])
    except UserError as error:
        problems += [f"path: {problem}" for problem in error.problems]
    try:
        if dataset.templates is not None:
            per_record = dataset.templates_per_record or config.templates_per_record
            renderer = TemplatedPairs(load_templates(Path(dataset.templates)), all_templates=per_record == "all")
    except UserError as error:
        problems += [f"templates: {problem}" for problem in error.problems]
    if problems:
        raise UserError(problems)
    if variants := dataset.variants or config.variants:
        renderer = VariedPairs(renderer, variants, config.wording)
    return MipDataset(name, path, files, renderer, cap=dataset.cap or task.cap, weight=dataset.weight)


def _validated(tree: Any, *, origin: str) -> MipConfig:
    try:
        # JSON mode is as strict about types, and builds sections from plain data.
        return MipConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise UserError([f"{origin}: {problem}" for detail in details for problem in _problems(detail)])


def _problems(detail: ErrorDetails) -> Iterator[str]:
    *sections, last = detail["loc"] or ("tasks",)
    key = ".".join(str(part) for part in (*sections, last))
    if detail["type"] == "extra_forbidden":
        keys = list(_section_at(tuple(sections)).model_fields)
        close = difflib.get_close_matches(str(last), keys, n=1)
        yield f"{key}: unknown key; " + (
            f"the nearest is {close[0]}" if close else f"the keys there are {', '.join(keys)}"
        )
    elif detail["type"] == "missing":
        meaning = _section_at(tuple(sections)).model_fields[str(last)].description or "the datasets by task"
        yield f"{key}: missing; add it ({' '.join(meaning.split())})"
    else:
        value = json.dumps(detail["input"], ensure_ascii=False)
        shown = value if len(value) <= 60 else f"{value[:56]} ..."
        yield f"{key}: {shown} is refused ({detail['msg'][0].lower()}{detail['msg'][1:]}); write another value"


def _section_at(location: tuple[int | str, ...]) -> type[Section]:
    """The class of the section at a place: ``tasks``, a name, ``datasets``, a name, ``variants``, a number."""
    if "variants" in location:
        return Variant
    if "wording" in location:
        return Wording
    sections: dict[int, type[Section]] = {0: MipConfig, 2: TaskConfig, 4: DatasetConfig}
    return sections[len(location)]
