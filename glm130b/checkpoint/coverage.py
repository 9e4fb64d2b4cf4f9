"""Whether the chunks of a checkpoint cover every tensor, and its files, once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from glm130b.checkpoint.layout import Chunk, Layout
from glm130b.durable import FileSummary


def coverage_problems(checkpoint: Path, layout: Layout, files: Mapping[str, FileSummary]) -> Iterator[str]:
    """One sentence for each tensor with an element in two chunks or in none, and for each file whose bytes are those of
    two chunks, of none, or not there."""
    by_file: dict[str, list[Chunk]] = {}
    for name, tensor in layout.tensors.items():
        # The layout has as many elements in chunks as in the tensor, so what is in two is missing elsewhere.
        if pair := _overlapping(tensor.chunks):
            first, second = (f"{list(chunk.sizes)} at {list(chunk.offset)}" for chunk in pair)
            yield f"{checkpoint}: {name}: its chunks {first} and {second} overlap, and others are missing"
        for chunk in tensor.chunks:
            by_file.setdefault(chunk.file, []).append(chunk)
    for file, chunks in sorted(by_file.items()):
        end = 0
        for chunk in sorted(chunks, key=lambda chunk: chunk.byte):
            if chunk.byte != end:
                yield f"{checkpoint / file}: a chunk begins at byte {chunk.byte}, and the one before ends at {end}"
                break
            end += chunk.num_bytes
        else:
            if file not in files:
                yield f"{checkpoint / file}: holds tensors, and has no checksum"
            elif files[file].bytes != end:
                yield f"{checkpoint / file}: its chunks end at byte {end} of {files[file].bytes}"


def _overlapping(chunks: Sequence[Chunk]) -> tuple[Chunk, Chunk] | None:
    """Two that have an element in common, found by sweeping over the first dimension: there may be thousands."""
    active: list[Chunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset):
        active = [other for other in active if not chunk.offset or other.offset[0] + other.sizes[0] > chunk.offset[0]]
        if crossing := next((other for other in active if _cross(chunk, other)), None):
            return crossing, chunk
        active.append(chunk)
    return None


def _cross(one: Chunk, other: Chunk) -> bool:
    return all(
        max(o1, o2) < min(o1 + n1, o2 + n2)
        for o1, n1, o2, n2 in zip(one.offset, one.sizes, other.offset, other.sizes, strict=True)
    )
