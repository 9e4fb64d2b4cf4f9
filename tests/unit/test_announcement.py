"""What a run says when it starts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from glm130b.announcement import announcement
from glm130b.config.load import load_config
from glm130b.data.mixing.era import Era

NO_INSTRUCTIONS = "objective.instruction_share=0"
TINY = Path(__file__).parent / "run.yaml"


def told(*overrides: str) -> list[str]:
    one = SimpleNamespace(size=1)
    topology: Any = SimpleNamespace(
        world_size=1, device=SimpleNamespace(type="cpu"), tensor=one, pipeline=one, data=one
    )
    stage: Any = SimpleNamespace(kernels=SimpleNamespace(describe=lambda: "attention by sdpa"))
    sources: Any = SimpleNamespace(num_left_out={"facts": 0, "long": 3})
    config = load_config(TINY, overrides)
    text = announcement(
        config,
        topology=topology,
        stage=stage,
        saved=None,
        folder=Path("runs/tiny"),
        sources=sources,
        eras=(Era.of(config),),
    )
    return text.splitlines()


@pytest.mark.parametrize(("samples", "warns"), [(99, True), (159, True), (160, False)])
def test_a_run_that_ends_in_its_warm_up_is_warned(samples: int, warns: bool) -> None:
    warning = (
        f"warning: optimizer.learning_rate.warmup_samples: 160 is more than train_samples {samples}, so the run "
        "ends in its warm-up; write for example 1"
    )
    assert (warning in told(f"train_samples={samples}")) == warns


def test_the_sources_are_named() -> None:
    assert "draws from text english, code, chinese; instructions facts" in told()
    assert "draws from text english, chinese" in told("data.text.code=null", NO_INSTRUCTIONS)
    assert "draws from text english; instructions facts" in told("data.text.code.weight=0", "data.text.chinese=null")


def test_pairs_that_do_not_fit_are_counted() -> None:
    warnings = [line for line in told() if line.startswith("warning:")]
    reason = "their answers do not fit a row; raise data.sequence_length"
    assert warnings == [f"warning: data.instructions.long: 3 pairs are left out, {reason}"]
