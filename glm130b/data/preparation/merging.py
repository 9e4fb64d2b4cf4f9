"""From shards to a corpus: in the order of the input, each document on its side."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm130b.data.arrays import BoolArray, Int64Array
from glm130b.data.corpus.manifest import SPLITS, Inputs, Manifest, SourceCounts, Split
from glm130b.data.corpus.origins import RECORD, OriginArray
from glm130b.data.corpus.writer import CorpusWriter
from glm130b.data.preparation.duplicates import Duplicates
from glm130b.data.preparation.inputs import Request, held_out_below
from glm130b.data.preparation.planning import Shard
from glm130b.data.preparation.selection import Cap, Selection, keyed
from glm130b.data.preparation.shards import Documents, ShardReader, document_lengths


class Place(NamedTuple):
    """A finished shard in its place among the others."""

    shard: Shard
    reader: ShardReader
    first_document: int
    """Number of its first document among all."""
    first_lines: Int64Array
    """Lines of its file before each of its pieces; int64 [pieces]."""


def placed(shards: Sequence[Shard], folder: Path, *, request: Request, vocab_size: int) -> Iterator[Place]:
    """The finished shards in order."""
    first_document, file, lines = 0, None, 0
    for shard in shards:
        reader = ShardReader(folder / shard.key, kind=request.kind, vocab_size=vocab_size)
        if file != (shard.dataset, shard.pieces[0].file):  # pieces of one file stand side by side
            file, lines = (shard.dataset, shard.pieces[0].file), 0
        yield Place(shard, reader, first_document, np.array([lines] + [0] * (len(shard.pieces) - 1)))
        lines += reader.summary.lines[0]
        first_document += reader.summary.documents


def merge(
    places: Sequence[Place], *, request: Request, inputs: Inputs, output: Path, unknown: int | None = None
) -> Manifest:
    """Write the corpus into ``output``, an empty folder, the manifest last; scratch files go beside it.

    Reads and writes each token once, some at a time. Documents with the id ``unknown`` are counted.
    """
    documents, rejected = np.zeros((2, len(inputs.files)), np.int64)
    reasons: dict[str, int] = {}
    with_unknown = 0
    for place in places:
        for row in place.reader.rejects() if place.reader.summary.rejected else ():
            rejected[place.shard.first_file + row["piece"]] += 1
            reasons[row["kind"]] = reasons.get(row["kind"], 0) + 1
    with ExitStack() as stack:
        selection = _selection(places, request, output.parent / "duplicates")
        writers: dict[Split, CorpusWriter] = {
            split: stack.enter_context(
                CorpusWriter(output, split=split, kind=request.kind, vocab_size=inputs.vocab_size)
            )
            for split in SPLITS
        }
        for place in places:
            dataset = request.datasets[place.shard.dataset]
            number = place.first_document
            for block, tokens in place.reader.blocks():
                copies = selection.copies(_content(block), first=number, dataset=dataset)
                number += len(block)
                with_unknown += _copies_with(unknown, block, tokens, copies)
                files = place.shard.first_file + block["piece"].astype(np.int64)
                documents += np.bincount(files, weights=copies, minlength=len(documents)).astype(np.int64)
                origins = _origins(block, files, place)
                is_held_out = block["side"] < np.uint64(held_out_below(request.validation_share))
                for split, chosen in (("train", ~is_held_out), ("validation", is_held_out)):
                    _write(writers[split], block, tokens, origins, np.where(chosen, copies, 0))  # type: ignore[index]
    manifest = Manifest(
        inputs=inputs,
        splits={split: writer.summary for split, writer in writers.items()},
        sources=tuple(
            SourceCounts(documents=good, rejected=bad)
            for good, bad in zip(documents.tolist(), rejected.tolist(), strict=True)
        ),
        records=sum(place.reader.summary.records for place in places),
        rejected=dict(sorted(reasons.items())),
        duplicates=selection.duplicates,
        capped=selection.capped,
        unknown=with_unknown,
    )
    manifest.write(output)
    return manifest


def _selection(places: Sequence[Place], request: Request, folder: Path) -> Selection:
    """Reads the hashes, once for duplicates and once for caps."""
    duplicates = None
    if request.drop_duplicates:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        total = sum(place.reader.summary.documents for place in places)
        contents = (_content(block) for place in places for block in place.reader.documents())
        duplicates = Duplicates(contents, num_documents=total, folder=folder)
    caps = {}
    for index, dataset in enumerate(request.datasets):
        if dataset.cap is not None:
            own = [place for place in places if place.shard.dataset == index]
            keys = (
                keyed(content, "cap", dataset.name) for place in own for content in _kept_contents(place, duplicates)
            )
            if cap := Cap.find(keys, dataset.cap):
                caps[dataset.name] = cap
    return Selection(duplicates=duplicates, caps=caps)


def _kept_contents(place: Place, duplicates: Duplicates | None) -> Iterator[NDArray[np.uint64]]:
    number = place.first_document
    for block in place.reader.documents():
        content = _content(block)
        yield content[~duplicates.among(number, len(block))] if duplicates else content
        number += len(block)


def _content(block: Documents) -> NDArray[np.uint64]:
    return block["content"].astype(np.uint64)


def _origins(block: Documents, files: Int64Array, place: Place) -> OriginArray:
    origins = np.empty(len(block), RECORD)
    origins["text_hash"], origins["file"] = block["text_hash"], files
    origins["line"] = block["line"] + place.first_lines[block["piece"]].astype(np.uint64)
    return origins


def _copies_with(token: int | None, block: Documents, tokens: NDArray[np.integer], copies: Int64Array) -> int:
    """How many of the copies hold the token."""
    if token is None:
        return 0
    ends = document_lengths(block).cumsum()
    holders = np.unique(np.searchsorted(ends, np.flatnonzero(tokens == token), side="right"))
    return int(copies[holders].sum())


def _write(
    writer: CorpusWriter, block: Documents, tokens: NDArray[np.integer], origins: OriginArray, copies: Int64Array
) -> None:
    """Each document of the block as often as ``copies`` says."""
    if not copies.any():
        return
    lengths = document_lengths(block)
    chosen = np.repeat(np.arange(len(block)), copies)
    sequences = block["lengths"][chosen].astype(np.int64).reshape(-1)
    writer.add(
        tokens if (copies == 1).all() else _gathered(tokens, lengths, chosen),
        lengths=sequences,
        origins=origins[chosen],
    )


def _gathered(tokens: NDArray[np.integer], lengths: Int64Array, chosen: Int64Array) -> NDArray[np.integer]:
    """The tokens of the chosen documents (int64 [any number], rising, with repetitions), one after the other."""
    is_once: BoolArray = np.diff(chosen, prepend=-1) > 0
    if is_once.all():
        kept = np.zeros(len(lengths), np.bool_)
        kept[chosen] = True
        return tokens[np.repeat(kept, lengths)]
    starts = lengths.cumsum() - lengths
    sizes = lengths[chosen]
    return tokens[np.repeat(starts[chosen] - (sizes.cumsum() - sizes), sizes) + np.arange(sizes.sum())]
