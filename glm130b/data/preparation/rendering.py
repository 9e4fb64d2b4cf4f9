"""From a record of a file to pairs of prompt and answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from glm130b.data.reading.documents import INSTRUCTION_FIELDS, texts_of

ALPACA_FIELDS = ("instruction", "output")


class Pair(NamedTuple):
    """One instruction and what is to be answered."""

    prompt: str
    answer: str
    side: str
    """The text whose hash decides whether the pair is held out. Pairs of one record share it, and exemplars put before
    a prompt do not change it, so that no record is on both sides."""
    form: str = ""
    """Name of the template; exemplars of a prompt have its form."""


PairsOf = Callable[[dict[str, Any]], list[Pair]]
"""The pairs of the next record of a shard. Raises ValueError with what is wrong with the record."""


class Renderer(Protocol):
    """How the records of a dataset become pairs; travels to worker processes, so it is pickled.

    Its ``repr`` says all that its pairs depend on.
    """

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        """A function for the records of one shard in their order; ``is_held_out`` tells it of ``Pair.side``.

        It may remember records: a shard needs one of its own, and then depends on nothing but its records.
        """
        ...


@dataclass(frozen=True)
class PlainPairs:
    """Records that hold their pair: {inputs, targets}, as FLAN's and P3's do, or Alpaca's {instruction, input, output},
    where input may be missing or empty. Their fields tell them apart; other fields are let be."""

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        return plain_pair


def plain_pair(record: dict[str, Any]) -> list[Pair]:
    """The pair that a record holds. Raises Rejection."""
    prompt, answer = texts_of(record, (INSTRUCTION_FIELDS, ALPACA_FIELDS))
    if not all(field in record for field in INSTRUCTION_FIELDS) and record.get("input") not in (None, ""):
        prompt = "\n\n".join((prompt, *texts_of(record, (("input",),))))
    return [Pair(prompt, answer, side=prompt)]
