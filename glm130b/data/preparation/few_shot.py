"""Variants of an instruction (FLAN, Wei et al. 2022): with or without exemplars, with or without reasoning."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field

from glm130b.config.section import Section
from glm130b.data.preparation.chance import chance, identity
from glm130b.data.preparation.rendering import Pair, PairsOf, Renderer

BLANK = "[MASK]"
RATIONALE = "rationale"
_BETWEEN = "\n\n"
_REMEMBERED = 64  # exemplars of each form to draw from: the last ones


class Variant(Section):
    """One way to put a dataset's instructions."""

    share: float = Field(gt=0)
    """Of the dataset's pairs, relative to its other variants."""
    shots: int = Field(default=0, ge=0, le=16)
    """Exemplars before the prompt: earlier training pairs of the same shard and template, or as many as there are."""
    most_characters: int = Field(default=1500, ge=1)
    """Of exemplars and prompt together; exemplars that would make them longer are left out. A prompt that does not fit
    its slot is cut in training, so leave it room there: 512 tokens are about 2000 English or 750 Chinese characters."""
    reasoning: bool = False
    """The record's ``rationale`` stands before the answer, and the prompt asks for it; records without one take the
    other variants."""


class Wording(Section):
    """What joins the parts of a variant."""

    request: str = "Let's think step by step."
    """Ends a prompt that is answered with reasoning."""
    conclusion: str = "So the answer is"
    """Stands between the reasoning and the answer."""


class _Exemplar(NamedTuple):
    side: str
    prompt: str
    answer: str
    rationale: str | None


@dataclass(frozen=True)
class VariedPairs:
    """The pairs of another renderer, each in one variant, drawn by the record.

    An exemplar is an earlier pair of the shard and of the same form; never one that is held out, nor one of the same
    record or of a record equal to it.
    """

    renderer: Renderer
    variants: tuple[Variant, ...]
    wording: Wording

    def for_shard(self, is_held_out: Callable[[str], bool]) -> PairsOf:
        plain = self.renderer.for_shard(is_held_out)
        remembered: dict[str, deque[_Exemplar]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

        def pairs_of(record: dict[str, Any]) -> list[Pair]:
            key, rationale = identity(record), _rationale(record)
            pairs = plain(record)
            varied = [self._varied(pair, rationale, remembered[pair.form], f"{key} {pair.form}") for pair in pairs]
            for pair in pairs:
                exemplar = _Exemplar(pair.side, pair.prompt, pair.answer, rationale)
                if _can_be_shown(exemplar) and not is_held_out(pair.side):
                    remembered[pair.form].append(exemplar)
            return varied

        return pairs_of

    def _varied(self, pair: Pair, rationale: str | None, earlier: Sequence[_Exemplar], key: str) -> Pair:
        variant = self._variant(rationale is not None, chance("variant", key))
        prompt, answer = self._worded(pair.prompt, pair.answer, rationale if variant.reasoning else None)
        others = [exemplar for exemplar in earlier if exemplar.side != pair.side] if variant.shots else []
        suitable = [exemplar for exemplar in others if exemplar.rationale is not None or not variant.reasoning]
        texts: list[str] = []
        room = variant.most_characters - len(prompt)
        for place in range(len(suitable)):  # a shuffle that ends when there are enough
            if len(texts) == variant.shots:
                break
            drawn = place + int(chance("exemplar", key, place) * (len(suitable) - place))
            suitable[place], suitable[drawn] = suitable[drawn], suitable[place]
            text = self._shown(suitable[place], reasoning=variant.reasoning) + _BETWEEN
            if len(text) <= room:
                texts.append(text)
                room -= len(text)
        return pair._replace(prompt="".join([*texts, prompt]), answer=answer)

    def _variant(self, has_rationale: bool, point: float) -> Variant:
        possible = [variant for variant in self.variants if has_rationale or not variant.reasoning]
        if not possible:
            raise ValueError(
                f"has no {RATIONALE}, and every variant is one with reasoning; write it, or another variant"
            )
        point *= sum(variant.share for variant in possible)
        for variant in possible:
            if point < variant.share:
                break
            point -= variant.share
        return variant

    def _shown(self, exemplar: _Exemplar, *, reasoning: bool) -> str:
        """An exemplar as it stands before a prompt: answered, or with its blank filled."""
        prompt, answer = self._worded(exemplar.prompt, exemplar.answer, exemplar.rationale if reasoning else None)
        return prompt.replace(BLANK, answer) if BLANK in prompt else f"{prompt}\n{answer}"

    def _worded(self, prompt: str, answer: str, rationale: str | None) -> tuple[str, str]:
        if rationale is None or BLANK in prompt:  # inside a sentence no reasoning can stand
            return prompt, answer
        return f"{prompt}\n{self.wording.request}", f"{rationale}\n{self.wording.conclusion} {answer}"


def _can_be_shown(exemplar: _Exemplar) -> bool:
    """Whether it is a pair that the corpus takes, and leaves no blank before the one that is to be filled."""
    try:
        f"{exemplar.prompt}{exemplar.answer}{exemplar.rationale}".encode()
    except UnicodeEncodeError:
        return False
    blanks = exemplar.prompt.count(BLANK), f"{exemplar.answer}{exemplar.rationale}".count(BLANK)
    return bool(exemplar.prompt.strip() and exemplar.answer.strip()) and blanks in ((0, 0), (1, 0))


def _rationale(record: dict[str, Any]) -> str | None:
    rationale = record.get(RATIONALE)
    if rationale in (None, ""):
        return None
    if not isinstance(rationale, str):
        raise ValueError(f"{RATIONALE} is not a string; write text there or leave it out")
    return rationale
