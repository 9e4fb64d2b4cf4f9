"""What a prepared corpus is made of: ``manifest.json`` in its folder."""

from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from glm130b.config.errors import UserError, unreadable
from glm130b.config.patience import is_gone
from glm130b.config.section import Section
from glm130b.durable import FileSummary, replace_durably

Split = Literal["train", "validation"]
Kind = Literal["text", "instructions"]

NAME = "manifest.json"
SPLITS: tuple[Split, ...] = ("train", "validation")


class SplitManifest(Section):
    """One side of the held-out split."""

    documents: int
    tokens: int
    """With the [eod] of each text."""
    files: dict[str, FileSummary]
    """Each of its files by name: ``<split>.bin``, ``.idx`` and ``.origins``."""


class SourceFile(Section):
    """A file that documents are read from, as it looked before; its contents are not hashed, for they may be large."""

    path: str
    bytes: int
    mtime_ns: int
    """Time of its last change, in nanoseconds."""


class Inputs(Section):
    """All that the corpus is a pure function of; two that are equal give the same corpus."""

    kind: Kind
    tokenizer: str
    """Fingerprint: SHA-256 of the tokenizer's file."""
    vocab_size: int
    """Every token id is below it."""
    eod: int
    """The id that closes each text."""
    options: dict[str, JsonValue]
    """The options of ``glm130b prepare`` that change its output, by name."""
    files: tuple[SourceFile, ...]
    """In the order of their documents."""


class SourceCounts(Section):
    """What was found in one source file."""

    documents: int
    """In the corpus, both splits together."""
    rejected: int


class Manifest(Section):
    """Written last: a folder with a manifest is whole."""

    format_version: Literal[1] = 1
    inputs: Inputs
    splits: dict[Split, SplitManifest] = Field(min_length=len(SPLITS))
    sources: tuple[SourceCounts, ...]
    """One for each of ``inputs.files``, in their order."""
    records: int = 0
    """Good and bad ones in the source files; a template may make several documents of one."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Documents left out because they were bad, by reason."""
    duplicates: int = 0
    """Documents left out because an earlier one is the same."""
    capped: int = 0
    """Documents left out because their set had enough."""
    unknown: int = 0
    """Documents with text that the tokenizer does not know and that is lost, both splits together."""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder; it is there in full or not at all."""
        replace_durably(folder / NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a prepared folder. Raises UserError."""
        mend = "make the folder with `glm130b prepare`"
        try:
            return cls.model_validate_json((folder / NAME).read_bytes())
        except OSError as error:
            if is_gone(error):
                raise unreadable(folder / NAME, error, mend=mend) from None
            other = "or name a Megatron dataset by the name that its .bin and .idx share"
            raise UserError(f"{folder}: has no readable {NAME}; {mend}, {other}") from None
        except ValueError:
            raise UserError(f"{folder / NAME}: is damaged or of another version; {mend}") from None

    def damaged_files(self, folder: Path) -> list[str]:
        """Names of the corpus files that are missing or do not have their size."""
        sizes = {name: file.bytes for split in self.splits.values() for name, file in split.files.items()}
        return [
            name
            for name, size in sizes.items()
            if not (folder / name).is_file() or (folder / name).stat().st_size != size
        ]
