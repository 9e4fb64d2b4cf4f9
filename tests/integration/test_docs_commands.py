"""Every command of the documentation is run here, or by the test that ``COVERED`` names, or is marked on its page.

A command that needs what no test has says so in its comment: ``# needs a cluster``, ``a GPU``, ``an account`` or ``a
terminal``. The same command on another page need not say it again.
"""

import ast
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import zstandard

from glm130b.cli import main
from glm130b.config.yaml_dialect import parse, write
from tests.harness.documentation import Documented, commands
from tests.integration.conftest import BIN, Command
from tests.integration.test_main_job import SHORT

ROOT = Path(__file__).resolve().parents[2]

COVERED = {
    ".ci/run": ("make check", "make test", "make test-full"),
    "tests/architecture/test_docs.py::test_the_site_is_built_without_a_warning": ("make docs",),
    "tests/incidents/test_endings.py::test_a_stop_file_ends_one_start_only": ("touch runs/tiny/stop",),
    "tests/integration/test_ablations.py::test_a_tiny_folder_is_trained_and_compared": (
        "make ablations",
        "python tools/ablation.py",
    ),
    "tests/integration/test_benchmarks.py::test_attention": ("python benchmarks/attention.py",),
    "tests/integration/test_benchmarks.py::test_checkpoint": ("python benchmarks/checkpoint.py",),
    "tests/integration/test_benchmarks.py::test_norms": ("python benchmarks/norms.py",),
    "tests/integration/test_benchmarks.py::test_plan": ("python benchmarks/plan.py",),
    "tests/integration/test_benchmarks.py::test_rows": ("python benchmarks/rows.py",),
    "tests/integration/test_benchmarks.py::test_step": ("python benchmarks/step.py",),
    "tests/integration/test_benchmarks.py::test_tokenizing_and_preparing": (
        "python benchmarks/preparing.py",
        "python benchmarks/tokenizing.py",
    ),
    "tests/integration/test_chaos.py::test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one": (
        "python benchmarks/chaos.py",
    ),
    "tests/integration/test_convert.py::test_memory_is_that_of_a_few_tensors": ("python benchmarks/convert.py",),
    "tests/integration/test_convert.py::test_the_page_its_run_and_back": (
        "glm130b convert export",
        "glm130b convert import",
    ),
    "tests/integration/test_main_job.py::test_a_fresh_clone_trains_with_one_command": (
        "make demo-data",
        "make train",
    ),
    "tests/integration/test_main_job.py::test_the_shell_starts_the_main_job": ("bash launch/pretrain.sh",),
    "tests/integration/test_report_in_a_browser.py::test_pictures": ("glm130b report runs/glm-130b --png pictures",),
    "tests/integration/test_report_in_a_browser.py::test_the_benchmark": ("python benchmarks/report.py",),
    "tests/integration/test_restarts.py::test_a_killed_worker_costs_a_restart_and_changes_nothing": (
        "bash launch/supervised.sh",
    ),
    "tests/cluster/test_slurm.py::test_a_job_trains_over_two_nodes_to_its_end": ("sbatch",),
    "tests/cluster/test_slurm.py::test_an_agent_on_every_node_trains_saves_when_warned_and_goes_on": (
        "deepspeed --hostfile hostfile --no_ssh",
        "torchrun --nnodes",
    ),
    "tests/unit/data/preparation/test_command.py::test_many_datasets_come_from_one_file": (
        "glm130b prepare --mip configs/mip/glm-130b.yaml",
    ),
    "tests/integration/test_docs_commands.py::test_tensorboard_shows_the_run": (
        "tensorboard --logdir runs/tiny/tensorboard",
    ),
}
"""What runs commands of these beginnings: a test, with data and sizes of its own, or the script of CI."""

STAND_INS = {
    "--pieces 32000": "--pieces 600",
    "0f3c...": "HASH",
    "runs/glm-130b": "runs/tiny",
    "step-00041000": "step-00000004",
}
"""What a small place needs instead; the hash is that of a document of the demo."""

HERE = ("echo", "glm130b", "wandb")
"""Programs whose commands are run here."""

DOCUMENTED = commands(ROOT)
MARKED = {command.text for command in DOCUMENTED if command.is_marked}
OPEN = [
    command
    for command in dict.fromkeys(DOCUMENTED)
    if command.text not in MARKED
    and not any(f"{command.text} ".startswith(f"{start} ") for starts in COVERED.values() for start in starts)
]
"""The commands that are run here."""
PLANS = [command for command in OPEN if command.text.startswith("glm130b plan ")]
RUN = [command for command in OPEN if command.words[0] in HERE and command not in PLANS]


def test_every_command_is_run_covered_or_marked() -> None:
    """One that fails here: run it, name the test that does, or mark it on its page."""
    assert len(DOCUMENTED) > 60
    assert [command.place for command in OPEN if command not in PLANS + RUN] == []


@pytest.mark.parametrize("runner", COVERED)
def test_what_covers_commands_exists_and_is_needed(runner: str) -> None:
    file, _, test = runner.partition("::")
    text = (ROOT / file).read_text()
    if test:
        assert test in {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}
    else:
        assert "make test\n" in text  # which checks first
    shown = [f"{command.text} " for command in DOCUMENTED]
    assert [start for start in COVERED[runner] if not any(text.startswith(f"{start} ") for text in shown)] == []


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """A working directory with the repository's configs, and the one that the quickstart writes."""
    (tmp_path / "configs").mkdir()
    for entry in (ROOT / "configs").iterdir():
        (tmp_path / "configs" / entry.name).symlink_to(entry)
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "index.md").read_text(), re.M | re.S)
    mine = {**parse((ROOT / "configs" / "glm-110m.yaml").read_text(), origin="preset"), **parse(block, origin="page")}
    mine["model"]["vocab_size"] = 32128
    (tmp_path / "configs" / "mine.yaml").write_text(write(mine))
    return tmp_path


@pytest.mark.parametrize("command", PLANS, ids=lambda command: command.place)
def test_a_plan(command: Documented, configs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configs)
    assert main(command.words[1:]) == 0


def test_the_numbers_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that the page on planning quotes are those that its command prints."""
    (quoted,) = re.findall(r"^```text\n(.*?)^```$", (ROOT / "docs" / "planning.md").read_text(), re.M | re.S)
    assert main(["plan", str(ROOT / "configs" / "glm-130b.yaml"), "--hardware", "a100-40g"]) == 0
    assert set(quoted.splitlines()) <= set(capsys.readouterr().out.splitlines())


@pytest.fixture(scope="module")
def material(demo: list[str], command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: texts of each kind, a tokenizer, the demo's data, and a run that has trained."""
    made = Path(demo[0].partition("=")[2]).parent
    folder = tmp_path_factory.mktemp("material")
    english, facts = (made / "text" / f"{name}.jsonl" for name in ("english", "facts"))
    corpora = folder / "data" / "demo" / "corpora"
    for place in (corpora, folder / "texts", folder / "more", folder / "web"):
        place.mkdir(parents=True)
    for name in ("english", "code", "chinese", "facts"):
        (corpora / name).symlink_to(made / name)
    for copy in ("data/demo/tokenizer.model", "data/tokenizer.model", "tokenizer.model"):
        shutil.copy(made / "tokenizer.model", folder / copy)
    for copy in ("pairs.jsonl", "chat.jsonl"):
        shutil.copy(facts, folder / copy)
    shutil.copy(english, folder / "texts")
    some = b"".join(english.read_bytes().splitlines(keepends=True)[:300])
    for place in ("more", "web"):
        (folder / place / "a.jsonl.zst").write_bytes(zstandard.compress(some))
    alone = ["parallel.tensor=1", "parallel.pipeline=1", "parallel.data=1", "batch.global_size=4"]
    words = [sys.executable, ROOT / "launch" / "pretrain.sh", ROOT / "configs" / "tiny.yaml", *demo, *SHORT, *alone]
    command([*words, f"folder={folder / 'runs'}", "train_samples=32", "logging.tensorboard=true"])
    shutil.copytree(folder / "runs" / "tiny", folder / "runs" / "tiny-pre", symlinks=True)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("page", sorted({command.page for command in RUN}))
def test_the_commands_of_a_page(page: str, configs: Path, material: Path) -> None:
    """One after the other, as a reader would, in a folder that holds what the page takes for granted."""
    shutil.copytree(material, configs, symlinks=True, dirs_exist_ok=True)
    environment = {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "DS_ACCELERATOR": "cpu", "HOME": str(configs)}
    printed = ""
    for command in (it for it in RUN if it.page == page):
        line = command.line
        for shown, here in STAND_INS.items():
            line = line.replace(shown, here)
        if "HASH" in line:
            line = line.replace("HASH", re.findall(r"\(hash ([0-9a-f]{32})\)", printed)[0])
        finished = subprocess.run(
            ["bash", "-c", line],
            cwd=configs,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        printed += finished.stdout
        assert finished.returncode == 0, f"{command.place}\n{finished.stdout}"


@pytest.mark.full
def test_tensorboard_shows_the_run(material: Path) -> None:
    """The command of the page, on a free port, asked once for what it has found."""
    (words,) = {command.words for command in DOCUMENTED if command.words[0] == "tensorboard"}
    program, *arguments = words
    serving = [BIN / program, *arguments, "--port", "0", "--load_fast", "false", "--reload_interval", "1"]
    with subprocess.Popen(serving, cwd=material, stderr=subprocess.PIPE, text=True) as server:
        try:
            said = next(line for line in server.stderr if "http://" in line)
            address = re.search(r"http://[^ /]+/", said)[0]
            assert "train/loss" in asked(f"{address}data/plugin/scalars/tags", "train/loss")
        finally:
            server.terminate()


def asked(address: str, wanted: str) -> str:
    """The answer, once it holds what is wanted; a server that has just started is still reading."""
    for _ in range(60):
        with urllib.request.urlopen(address, timeout=20) as answer:
            text: str = answer.read().decode()
        if wanted in text:
            break
        time.sleep(0.5)
    return text
