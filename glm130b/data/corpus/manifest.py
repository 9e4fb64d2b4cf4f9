"""What a prepared corpus is made of: ``manifest.json`` in its folder."""

from pathlib import Path
from typing import Literal

from glm130b.config.errors import UserError
from glm130b.config.section import Section

_NAME = "manifest.json"
SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")


class SplitManifest(Section):
    """One side of the held-out split."""

    documents: int
    tokens: int
    """With the [eod] of each text."""
    file_bytes: dict[str, int]
    """Size of each of its files by name."""


class SourceFile(Section):
    """A file that documents were read from."""

    path: str
    sha256: str


class Inputs(Section):
    """All that the corpus is a pure function of."""

    kind: Literal["text", "instructions"]
    tokenizer: str
    """SHA-256 of the tokenizer's model file."""
    validation_share: float
    files: tuple[SourceFile, ...]

    def contents(self) -> tuple[str, str, float, tuple[str, ...]]:
        """The inputs without where they lie."""
        return self.kind, self.tokenizer, self.validation_share, tuple(file.sha256 for file in self.files)


class Manifest(Section):
    """Written last: a folder with a manifest is whole."""

    inputs: Inputs
    splits: dict[str, SplitManifest]

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder."""
        (folder / _NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a prepared folder. Raises UserError."""
        mend = "make the folder with `glm130b prepare`"
        try:
            return cls.model_validate_json((folder / _NAME).read_bytes())
        except OSError:
            raise UserError(f"{folder}: has no readable {_NAME}; {mend}") from None
        except ValueError:
            raise UserError(f"{folder / _NAME}: is damaged or of another version; {mend}") from None

    def damaged_files(self, folder: Path) -> list[str]:
        """Names of the corpus files that are missing or do not have their size."""
        sizes = {name: size for split in self.splits.values() for name, size in split.file_bytes.items()}
        return [
            name
            for name, size in sizes.items()
            if not (folder / name).is_file() or (folder / name).stat().st_size != size
        ]
