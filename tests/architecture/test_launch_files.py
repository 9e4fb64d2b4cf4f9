"""The launch scripts, the image and the Makefile say what the code does."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

SCRIPTS = (
    "launch/pretrain.sh",
    "launch/supervised.sh",
    "launch/start.sh",
    "launch/env.sh",
    "launch/python.sh",
    "launch/slurm.sbatch",
    "launch/agent.sh",
    "tools/system_packages.sh",
    ".ci/run",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shell_scripts_are_valid_shell(root: Path, script: str) -> None:
    subprocess.run(["bash", "-n", root / script], check=True, timeout=60)


def test_the_main_job_is_valid_python_too(root: Path) -> None:
    ast.parse((root / "launch" / "pretrain.sh").read_text())


def test_network_settings_are_explained_and_leave_what_is_set(root: Path) -> None:
    lines = (root / "launch" / "env.sh").read_text().splitlines()
    settings = [number for number, line in enumerate(lines) if line.startswith("export ")]
    assert settings
    for number in settings:
        assert lines[number - 1].startswith("# "), f"{lines[number]} is not explained"
        name = re.match(r'export (\w+)="\$\{\1:-\S+\}"$', lines[number])
        assert name, f"{lines[number]} would overwrite what the user has set"


def test_launch_files_hold_no_hyper_parameters(root: Path) -> None:
    text = "".join(file.read_text() for file in (root / "launch").iterdir() if file.is_file())
    assert not re.findall(r"\b(?:model|optimizer|batch|objective|precision)\.\w+=", text)


def test_slurm_gives_the_launcher_what_it_reads(root: Path) -> None:
    text = (root / "launch" / "slurm.sbatch").read_text()
    for needed in ("--nodes", "--ntasks-per-node", "--gpus-per-node", "--mem=0", "--requeue", "--kill-on-bad-exit=1"):
        assert needed in text
    assert "export MASTER_ADDR MASTER_PORT" in text
    assert "scontrol show hostnames" in text
    said = re.findall(r"^#   (GLM130B_\w+)=", text, re.M)
    read = "".join((root / "launch" / file).read_text() for file in ("slurm.sbatch", "agent.sh"))
    set_here = set(re.findall(r"(GLM130B_\w+)=\"\$", text))
    assert set(said) == set(re.findall(r"\bGLM130B_\w+", read)) - set_here


def test_the_image_is_pinned_and_runs_without_root(root: Path) -> None:
    lines = (root / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    (base,) = [what for step, what in steps if step == "FROM"]
    assert re.fullmatch(r"pytorch/pytorch:2\.1\d\.\d-cuda[\d.]+-cudnn\d-devel", base)
    arguments = dict(what.split("=", 1) for step, what in steps if step == "ARG")
    assert re.fullmatch(r"[0-9a-f]{40}", arguments["APEX_COMMIT"])
    assert any(step == "RUN" and 'checkout "$APEX_COMMIT"' in what for step, what in steps)
    assert not {"root", "0"} & {what for step, what in steps if step == "USER"}
    assert [step for step, _ in steps[-2:]] == ["USER", "CMD"]
    assert not re.search(r"(?i)secret|token|password", "\n".join(lines))


def test_the_image_has_the_torch_that_the_pins_name(root: Path) -> None:
    (pin,) = re.findall(r"^torch==(\S+)$", (root / "constraints.txt").read_text(), re.M)
    assert f"pytorch/pytorch:{pin}-" in (root / "Dockerfile").read_text()


def test_every_requirement_is_pinned(root: Path) -> None:
    pins = {name.lower() for name in re.findall(r"^([\w.-]+)==", (root / "constraints.txt").read_text(), re.M)}
    project = (root / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|dev|requires) = \[(.*?)\]", project, re.M | re.S)
    named = {name.lower() for listed in lists for name in re.findall(r'"([\w.-]+)', listed)}
    assert len(lists) == 3
    assert named - pins == set()


def test_every_target_is_explained_by_help(root: Path) -> None:
    makefile = (root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.M))
    assert explained == set(phony.split())
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=root, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == explained
