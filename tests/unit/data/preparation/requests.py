"""Small requests, and what came of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm130b.data.corpus.corpus import Corpus
from glm130b.data.corpus.manifest import Manifest, Split
from glm130b.data.preparation.inputs import Dataset, Request
from glm130b.data.preparation.planning import Cutting
from glm130b.data.preparation.preparing import prepare
from glm130b.data.preparation.rendering import Renderer
from glm130b.data.reading.pieces import Reading
from glm130b.data.tokenizers.tokenizer import Tokenizer

SMALL = Cutting(piece_bytes=4000, small_file_bytes=200, files_per_shard=3)
"""Many shards of a small file."""


def request(folder: Path, files: Sequence[Path], *, renderer: Renderer | None = None, **changes: Any) -> Request:
    """Of one dataset; ``folder`` holds tokenizer.model."""
    of_dataset = {key: changes.pop(key) for key in ("name", "cap", "weight") if key in changes}
    dataset = Dataset(**{"name": "", "files": tuple(files), "renderer": renderer, **of_dataset})
    asked = Request(
        kind="instructions" if renderer else "text",
        tokenizer=folder / "tokenizer.model",
        datasets=(dataset,),
        reading=Reading(),
        validation_share=0.2,
    )
    return dataclasses.replace(asked, **changes)


def prepared(
    asked: Request, output: Path, *, num_workers: int = 1, reject_share: float = 0.0, cutting: Cutting = SMALL
) -> Manifest | None:
    rejects = output.with_name(f"{output.name}.rejected.jsonl")
    return prepare(asked, output, rejects=rejects, reject_share=reject_share, num_workers=num_workers, cutting=cutting)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def texts(folder: Path, split: Split, tokenizer: Tokenizer) -> list[str]:
    """The documents of a split, decoded."""
    if not Manifest.read(folder).splits[split].documents:
        return []
    corpus = Corpus(folder, split=split, kind="text", tokenizer=tokenizer.fingerprint)
    return tokenizer.decode(corpus.read(0, corpus.num_tokens).tolist()).split("<eod>")[:-1]
