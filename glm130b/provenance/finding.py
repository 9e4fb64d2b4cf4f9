"""The reverse of a sample index: which samples of a run read a document."""

from bisect import bisect_right
from collections.abc import Iterator

from glm130b.data.corpus.corpus import Document
from glm130b.data.dataset import GLMDataset


def readings(rows: GLMDataset, section: str, source: str, document: Document, *, num_samples: int) -> Iterator[int]:
    """The samples among the first ``num_samples`` of a run whose row holds tokens of the document, in rising order.

    A row may be drawn from the stretch that a document lies in and still have no room for it, so each is looked at.
    """

    def draws(samples: int) -> int:
        """How many of the first ``samples`` are of the source."""
        counts = rows.mixture.rows(samples)
        return sum(count for kind, count in counts.items() if (kind.section, kind.source) == (section, source))

    for ordinal in rows.sources.draws_of(section, source, document, num_draws=draws(num_samples)):
        sample = bisect_right(range(num_samples), ordinal, key=draws) - 1
        if any(
            origin.start < document.end and document.start < origin.start + origin.length
            for origin in rows[sample].origins
        ):
            yield sample
