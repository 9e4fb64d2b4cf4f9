"""What the runs of an ablation came to, from their metrics: one table, one plot."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

LAST_STEPS = 40
"""Steps over whose losses the final training loss is the mean."""
SPIKE_STEPS, SPIKE_FACTOR = 20, 3.0
"""A spike is a gradient norm above so many times the median of so many steps before it."""


@dataclass(frozen=True)
class Run:
    """One run's numbers; a number that was not finite is NaN."""

    name: str
    parameters: int
    losses: list[float]
    """Of the training steps, in nats."""
    gradient_norms: list[float]
    """Before clipping; that of a step skipped for its overflow in fp16 is not finite."""
    held_out: dict[int, float]
    """Held-out loss by step."""
    tokens_per_second: float
    """Median over the steps."""

    @classmethod
    def read(cls, metrics: Path, *, name: str, parameters: int) -> "Run":
        """A run from its ``metrics.jsonl``."""
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        steps = [record for record in records if record["kind"] == "train"]
        return cls(
            name=name,
            parameters=parameters,
            losses=[_number(step["loss"]) for step in steps],
            gradient_norms=[_number(step["gradient_norm"]) for step in steps],
            held_out={record["step"]: _number(record["loss"]) for record in records if record["kind"] == "validation"},
            tokens_per_second=statistics.median(step["tokens_per_second"] for step in steps),
        )

    @property
    def final_loss(self) -> float:
        return statistics.fmean(self.losses[-LAST_STEPS:])

    @property
    def final_held_out(self) -> float:
        return self.held_out[max(self.held_out)]

    @property
    def finite_norms(self) -> list[float]:
        return [norm for norm in self.gradient_norms if math.isfinite(norm)]

    @property
    def num_spikes(self) -> int:
        """Finite steps, from the first with ``SPIKE_STEPS`` finite ones before it, whose gradient norm spikes."""
        norms = self.finite_norms
        medians = (statistics.median(norms[step - SPIKE_STEPS : step]) for step in range(SPIKE_STEPS, len(norms)))
        return sum(norm > SPIKE_FACTOR * before for norm, before in zip(norms[SPIKE_STEPS:], medians, strict=True))


def write_comparison(runs: Iterable[Run], folder: Path, *, title: str) -> Path:
    """``comparison.md`` and the plot beside it as SVG and PNG, the best run first; the path of the table."""
    ranked = sorted(runs, key=lambda run: (math.isnan(run.final_held_out), run.final_held_out))
    page = folder / "comparison.md"
    page.write_text(f"# {title}\n\n{table(ranked)}\n\n![Loss and gradient norm](comparison.svg)\n", encoding="utf-8")
    figure = plot(ranked, title=title)
    figure.savefig(folder / "comparison.svg", metadata={"Date": None})
    figure.savefig(folder / "comparison.png", dpi=150)
    return page


def table(runs: Sequence[Run]) -> str:
    """A Markdown table, and under it what its columns mean."""
    head = (
        "run",
        "training loss",
        "held-out loss",
        "gradient norm, median",
        "largest",
        "spikes",
        "not finite",
        "parameters",
        "tokens/s",
    )
    rows = [
        (
            run.name,
            f"{run.final_loss:.3f}",
            f"{run.final_held_out:.3f}",
            f"{statistics.median(run.finite_norms or [math.nan]):.3f}",
            f"{max(run.finite_norms, default=math.nan):.3f}",
            str(run.num_spikes),
            str(len(run.gradient_norms) - len(run.finite_norms)),
            f"{run.parameters:,}",
            f"{run.tokens_per_second:,.0f}",
        )
        for run in runs
    ]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) + ("---:",) * (len(head) - 1), *rows)]
    legend = (
        f"After {max(len(run.losses) for run in runs)} steps. Training loss: mean of the last {LAST_STEPS} steps. "
        f"Gradient norm: global, before clipping, over the steps where it is finite; where it is not, fp16 overflowed "
        f"or the run broke. Spike: a norm above {SPIKE_FACTOR:g} times the median of the {SPIKE_STEPS} steps before."
    )
    return "\n".join([*lines, "", legend])


def plot(runs: Sequence[Run], *, title: str) -> Figure:
    """Training loss with the held-out points, and gradient norm, over the steps."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    loss, norm = figure.subplots(1, 2)
    for color, run in enumerate(runs):
        steps, style = range(1, len(run.losses) + 1), {"color": f"C{color}"}
        loss.plot(steps, run.losses, alpha=0.25, linewidth=0.8, **style)
        loss.plot(steps, _running_mean(run.losses), label=run.name, **style)
        loss.plot(list(run.held_out), list(run.held_out.values()), "o", markersize=4, **style)
        norm.plot(steps, run.gradient_norms, linewidth=0.8, **style)
    loss.set(xlabel="step", ylabel="loss (nats); dots: held out")
    loss.legend(frameon=False)
    norm.set(xlabel="step", ylabel="gradient norm", yscale="log")
    for axes in (loss, norm):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _running_mean(values: Sequence[float], width: int = 9) -> list[float]:
    """Mean of each value and those up to half the width on either side."""
    reach = width // 2
    return [statistics.fmean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]


def _number(value: float | None) -> float:
    """JSON has null where a number was not finite."""
    return math.nan if value is None else value
