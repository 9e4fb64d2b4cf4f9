"""Eras to mix, and what is due in them, reckoned sample by sample with fractions of nothing but floats."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from glm130b.config.ramp import Ramp
from glm130b.data.mixing.era import Era

Weights = dict[str, Any]


def era(
    text: Weights,
    instructions: Weights | None = None,
    *,
    instruction: Any = 0.0,
    mask: Any = 0.3,
    smask: Any = 0.0,
    start: int = 0,
) -> Era:
    """Numbers are constants; dictionaries are ramps."""

    def ramps(weights: Weights) -> dict[str, Ramp]:
        return {name: Ramp.model_validate(weight) for name, weight in weights.items()}

    return Era(
        from_samples=start,
        instruction_share=Ramp.model_validate(instruction),
        mask_share=Ramp.model_validate(mask),
        smask_share=Ramp.model_validate(smask),
        text=ramps(text),
        instructions=ramps(instructions or {}),
    )


def ramp(start: float, end: float, first: int, length: int) -> dict[str, Any]:
    return {"start": start, "end": end, "from_samples": first, "over_samples": length}


def shares_at(era: Era, sample: int) -> dict[tuple[str, str], float]:
    """Share of each (objective, source) among samples such as this one."""
    instruction, mask, smask = (share.at(sample) for share in (era.instruction_share, era.mask_share, era.smask_share))
    objectives = {"gmask": 1 - mask - smask, "mask": mask, "smask": smask}
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for section, part in ((era.text, 1 - instruction), (era.instructions, instruction)):
        total = sum(weight.at(sample) for weight in section.values())
        for name, weight in section.items():
            for objective, share in objectives.items() if section is era.text else [("instruction", 1.0)]:
                shares[objective, name] += part * share * weight.at(sample) / total
    return shares


def dues(eras: Sequence[Era], samples: int) -> list[dict[tuple[str, str], float]]:
    """What each (objective, source) is due of the first 0, 1, .. ``samples`` samples."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    result = [dict(sums)]
    for sample in range(samples):
        current = max((era for era in eras if era.from_samples <= sample), key=lambda era: era.from_samples)
        for kind, share in shares_at(current, sample).items():
            sums[kind] += share
        result.append(dict(sums))
    return result


weights = st.integers(-6, 0).flatmap(lambda power: st.floats(1, 10).map(lambda factor: factor * 10.0**power))
