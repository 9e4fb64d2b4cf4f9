"""What a checkpoint holds and how its run came there, as lines of text."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glm130b.checkpoint.description import Description
from glm130b.checkpoint.folder import DESCRIPTION
from glm130b.checkpoint.layout import Layout, StoredTensor
from glm130b.checkpoint.planner import MASTER
from glm130b.config.errors import UserError
from glm130b.config.interventions import Intervention
from glm130b.data.mixing.era import changes


def inspected(checkpoint: Path, *, with_tensors: bool) -> list[str]:
    """A page about a checkpoint, with a line for every tensor if that is asked for.

    Raises UserError when it cannot be read.
    """
    try:
        return list(_lines(checkpoint, with_tensors=with_tensors))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f"{checkpoint / DESCRIPTION}: is not what a run writes ({error!r}); look at another checkpoint"
        ) from error


def _lines(checkpoint: Path, *, with_tensors: bool) -> Iterator[str]:
    description, layout = Description.read(checkpoint), Layout.read(checkpoint)
    progress, config = description.progress, description.config
    yield f"{checkpoint}: {config.get('name')} after step {progress.step}, {progress.samples:,} samples"
    yield f"  {progress.skipped_updates} updates skipped, {progress.skipped_steps} steps passed over"
    yield f"  written by {_versions(checkpoint)}"
    yield f"  {_held(layout)}, {'with' if description.optimizer_state else 'without'} optimizer state"
    for change in changes(description.eras):
        yield f"  {change}"
    for intervention in description.interventions:
        yield f"  intervention of the stability guard {_told(intervention)}"
    for intervention in map(Intervention.model_validate, config.get("interventions", [])):
        yield f"  intervention of the user {_told(intervention)}"
    for resume in description.resumes:
        yield f"  resumed {resume.time} at step {resume.step} on {resume.processes} processes"
        for key, (then, now) in resume.changes.items():
            yield f"    {key}: {json.dumps(then)} -> {json.dumps(now)}"
    for name, tensor in sorted(layout.tensors.items()) if with_tensors else ():
        yield f"  {name}  {tensor.dtype} {list(tensor.shape)}"


def size(num_bytes: int) -> str:
    """Bytes for a person.

    >>> size(49_300_000)
    '49.3 MB'
    """
    power = min(int(math.log10(max(num_bytes, 1))) // 3, 4)
    return f"{num_bytes / 1000**power:.{1 if power else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def _held(layout: Layout) -> str:
    chunks = [chunk for tensor in layout.tensors.values() for chunk in tensor.chunks]
    files = {chunk.file for chunk in chunks}
    weights = sum(_elements(tensor) for name, tensor in layout.tensors.items() if name.startswith(f"{MASTER}/"))
    count = f"{len(files)} file{'s' * (len(files) != 1)}"
    return (
        f"{len(layout.tensors)} tensors of {sum(map(_elements, layout.tensors.values())):,} numbers, "
        f"{weights:,} of them weights, in {count} of {size(sum(chunk.num_bytes for chunk in chunks))}"
    )


def _elements(tensor: StoredTensor) -> int:
    return math.prod(tensor.shape)


def _versions(checkpoint: Path) -> str:
    """They are for people only, so no Description has them."""
    versions: Any = json.loads((checkpoint / DESCRIPTION).read_text(encoding="utf-8")).get("versions")
    return ", ".join(f"{name} {it}" for name, it in versions.items()) if isinstance(versions, dict) else "unknown"


def _told(change: Intervention) -> str:
    what = [
        f"learning rate x {change.learning_rate_factor:g}" if change.learning_rate_factor != 1 else "",
        f"alpha x {change.alpha_factor:g}" if change.alpha_factor != 1 else "",
        f"over {change.over_samples:,} samples" if change.over_samples else "",
        f"warmed up again over {change.rewarm_samples:,} samples" if change.rewarm_samples else "",
        f"{change.skip.steps} steps from {change.skip.from_step} on passed over" if change.skip else "",
    ]
    reason = f" ({change.reason})" if change.reason else ""
    return f"from sample {change.from_samples:,} on: {', '.join(filter(None, what)) or 'nothing'}{reason}"
