"""``glm130b plan`` and its options."""

from pathlib import Path

import pytest

from glm130b.cli import main

RUN = str(Path(__file__).parents[1] / "run.yaml")


def test_a_plan_with_hardware(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", RUN, "--hardware", "h100", "--price", "3", "parallel.recompute=full"]) == 0
    assert "$3 a GPU hour" in capsys.readouterr().out


def test_a_search_over_more_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", RUN, "--hardware", "h100", "--search", "--world-size", "16"]) == 0
    assert "Search over 16 GPUs, h100" in capsys.readouterr().out


def test_a_search_for_what_the_config_does_not_say_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Four layers in three stages, as they would be now."""
    open_layout = [RUN, "parallel.pipeline=3", "parallel.data=null", "--hardware", "h100", "--world-size", "8"]
    assert main(["plan", *open_layout]) == 2
    assert "model.num_layers" in capsys.readouterr().err
    assert main(["plan", *open_layout, "--search"]) == 0
    assert "   1 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--search"], "--search: has no meaning without --hardware"),
        (["--price", "2", "--efficiency", ".5"], "--efficiency, --price: has no meaning without --hardware"),
        (["--hardware", "h1000"], "--hardware: 'h1000' is not known; write h100"),
        (["--hardware", "v100-32g", "precision.dtype=bf16"], "precision.dtype: bf16 is not for v100-32g"),
        (
            ["--hardware", "v100-32g", "kernels.attention=varlen", "precision.dtype=fp16"],
            "kernels.attention: varlen needs a GPU later than v100-32g",
        ),
        (["--hardware", "h100", "--search", "parallel.data=null"], "--search: parallel.data is open"),
        (
            ["--hardware", "h100", "--search", "--world-size", "761"],
            "no layout of 761 GPUs keeps the rules; most break",
        ),
        (["--hardware", "h100", "--search", "--world-size", "0"], "--world-size: 0 is no number of processes"),
        (["--hardware", "h100", "--search", "batch.ramp.start=16"], "batch.ramp.start: 16 is not below"),
        (["--hardware", "h100", "--search", "objective.instruction_share=2"], "objective.instruction_share: "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", RUN, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
