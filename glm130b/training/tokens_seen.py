"""How many tokens of each objective and source a run has trained on."""

from collections import Counter

from glm130b.data.mixing.mixture import Mixture
from glm130b.data.mixing.shares import Kind
from glm130b.training.progress import Progress
from glm130b.training.schedules import Schedules


class TokensSeen:
    """Counted by arithmetic: the mixture knows how many of the first n rows were of each kind."""

    def __init__(self, mixture: Mixture, schedules: Schedules) -> None:
        self._mixture, self._schedules = mixture, schedules

    def until(self, progress: Progress) -> dict[str, float]:
        """``tokens/<objective>`` and ``tokens/<section>.<source>`` up to a point of the run: rows x sequence length,
        padding included, without the steps that were passed over."""
        rows: Counter[Kind] = Counter(self._mixture.rows(progress.samples))
        for skipped in self._schedules.skipped_before(progress.step):
            rows.update(self._mixture.rows(skipped.start))
            rows.subtract(self._mixture.rows(skipped.stop))
        length = self._schedules.config.data.sequence_length
        tokens: Counter[str] = Counter()
        for kind, count in rows.items():
            tokens[f"tokens/{kind.objective}"] += count * length
            tokens[f"tokens/{kind.section}.{kind.source}"] += count * length
        return {name: float(count) for name, count in tokens.items()}
