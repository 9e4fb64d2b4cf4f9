"""``glm130b convert`` as a user calls it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from glm130b.cli import main
from tests.conftest import ROOT
from tests.harness.released import released_weights, write_released
from tests.harness.synthetic import small_config

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # no job here

TINY = str(ROOT / "configs" / "tiny.yaml")
SIZES = ("num_layers", "hidden_size", "num_attention_heads", "ffn_hidden_size", "vocab_size")


@pytest.fixture
def words(tmp_path: Path, tokenizer_model: Path) -> list[str]:
    """RELEASED CONFIG and overrides."""
    model = small_config().model
    released = write_released(tmp_path / "released", released_weights(model), 2)
    sizes = [f"model.{key}={getattr(model, key)}" for key in SIZES]
    return [str(released), TINY, f"folder={tmp_path / 'runs'}", f"data.tokenizer={tokenizer_model}", *sizes]


def test_in_and_out(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = words.index(TINY) + 1
    words = [*words[:config], "--samples", "8", *words[config:]]
    assert main(["convert", "import", *words, "model.rotary_table=fp16"]) == 0
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    assert capsys.readouterr().out == (
        f"{checkpoints / 'step-00000002'}: written, weights without optimizer state; training goes on from here\n"
    )
    export = ["convert", "export", str(tmp_path / "runs" / "tiny")]
    assert main([*export, str(tmp_path / "newest"), "--tensor", "4"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'newest'}: step-00000002 written as 4 shards of fp16\n"
    assert main([*export, str(tmp_path / "second"), "--tensor", "1", "--step", "2", "--dtype", "bf16"]) == 0
    assert len(list((tmp_path / "newest" / "2").iterdir())) == 4
    assert len(list((tmp_path / "second" / "2").iterdir())) == 1


def test_an_fp32_rotary_table_is_remarked(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "import", *words]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "note: the original computed its rotary angles in fp16; model.rotary_table=fp16 gives the same logits"
    )


def test_mistakes_are_messages_and_status_2(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "runs" / "tiny", str(tmp_path / "out")
    assert main(["convert", "import", *words, "model.num_layers=6"]) == 2
    assert main(["convert", "import", *words, "model.biases=false", "model.ffn=gelu"]) == 2
    assert main(["convert", "export", str(run), out, "--tensor", "0"]) == 2
    assert main(["convert", "export", str(run), out, "--tensor", "1"]) == 2
    assert main(["convert", "export", str(run), out, "--tensor", "1", "--step", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [problem.split(":")[2].strip() for problem in captured.err.splitlines()] == [
        "model.num_layers",
        "model.ffn",
        "model.biases",
        "--tensor",
        str(run),
        str(run / "checkpoints"),
    ]
    assert not run.exists()


@pytest.mark.parametrize(("way", "limit"), [("import", 10_000), ("export", 50_000)])
def test_files_that_cannot_grow_are_a_message_and_leave_nothing(
    tmp_path: Path, words: list[str], way: str, limit: int
) -> None:
    """A full disk, played by the largest size of a file that the process may write."""
    if way == "export":
        assert main(["convert", "import", *words]) == 0
        words = [str(tmp_path / "runs" / "tiny"), str(tmp_path / "out"), "--tensor", "1"]
    limited = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"from glm130b.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", limited, "convert", way, *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"glm130b: error: .* cannot be written .*; .*\n", done.stderr)
    checkpoints = tmp_path / "runs" / "tiny" / "checkpoints"
    assert [path.name for path in checkpoints.glob("*") if path.name != "latest"] == (
        ["step-00000000"] if way == "export" else []
    )
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("argv", [[], ["import"], ["export", "a", "b"], ["export", "a", "b", "--tensor", "two"]])
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["convert", *argv])
    assert exited.value.code == 2
    assert "usage: glm130b convert" in capsys.readouterr().err
