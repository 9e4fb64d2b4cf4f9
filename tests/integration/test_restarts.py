"""What supervisors do with a run: torchrun's agent, and Slurm's script, its commands played by two small ones."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from tests.integration.conftest import BIN, Command
from tests.integration.test_main_job import SHORT, metrics, run_folder

QUICK = ["logging.wandb=disabled", "supervision.restart_delay_seconds=0.2"]
TWO_PROCESSES = ["parallel.tensor=1", "parallel.pipeline=2", "parallel.data=1"]


class Supervised:
    """A run under ``launch/supervised.sh``, and a hand on its workers."""

    def __init__(self, root: Path, words: list[str], printed: Path, restarts: int) -> None:
        self._printed = printed
        self._job = subprocess.Popen(
            ["bash", root / "launch" / "supervised.sh", root / "configs" / "tiny.yaml", *words],
            env={
                "PATH": f"{BIN}:/usr/bin:/bin",
                "PYTHONUNBUFFERED": "1",
                "DS_ACCELERATOR": "cpu",
                "GLM130B_RESTARTS": str(restarts),
            },
            stdout=printed.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def kill_a_worker(self) -> None:
        """SIGKILL, as the kernel does when memory runs out."""
        workers = psutil.Process(self._job.pid).children()
        next(worker for worker in workers if worker.environ().get("RANK") == "1").kill()

    def wait_until(self, sight: str, times: int = 1) -> None:
        deadline = time.monotonic() + 120
        while len(re.findall(sight, self.printed, re.M)) < times:
            assert time.monotonic() < deadline, self.printed
            assert self._job.poll() is None, self.printed
            time.sleep(0.05)

    def end(self) -> int:
        return self._job.wait(timeout=180)

    def stop(self) -> None:
        if self._job.poll() is None:
            self._job.terminate()
            self._job.wait(timeout=60)


@pytest.fixture
def supervise(root: Path, demo: list[str], tmp_path: Path) -> Iterator["Supervisor"]:
    supervisor = Supervisor(root, demo, tmp_path)
    yield supervisor
    for run in supervisor.runs:
        run.stop()


class Supervisor:
    def __init__(self, root: Path, demo: list[str], folder: Path) -> None:
        self._root, self._demo, self._folder = root, demo, folder
        self.runs: list[Supervised] = []

    def __call__(self, *words: str, restarts: int) -> Supervised:
        printed = self._folder / f"{len(self.runs)}.txt"
        self.runs.append(Supervised(self._root, [*self._demo, *SHORT, *QUICK, *words], printed, restarts))
        return self.runs[-1]


def test_a_killed_worker_costs_a_restart_and_changes_nothing(
    root: Path, demo: list[str], command: Command, supervise: Supervisor
) -> None:
    saved_at_once = ["checkpoint.asynchronous=false", "checkpoint.every_steps=2"]
    words = [*TWO_PROCESSES, "train_samples=96", *saved_at_once]
    torchrun = [
        BIN / "torchrun",
        "--nproc-per-node",
        "2",
        root / "launch" / "pretrain.sh",
        root / "configs" / "tiny.yaml",
    ]
    command([*torchrun, *demo, *SHORT, *QUICK, *words, "name=left-alone"])

    run = supervise(*words, "name=supervised", restarts=3)
    run.wait_until("checkpoint saved: step 2")
    run.kill_a_worker()
    assert run.end() == 0, run.printed
    assert run.printed.count("glm130b: restart 1 begins in 0.2 s") == 1
    assert "restart 2" not in run.printed
    assert metrics(run_folder(demo, "supervised")) == metrics(run_folder(demo, "left-alone"))


@pytest.mark.full
def test_restarts_have_an_end(demo: list[str], supervise: Supervisor) -> None:
    run = supervise(*TWO_PROCESSES, "train_samples=3200", "name=limited", restarts=1)
    for started in (1, 2):
        run.wait_until(r"^ +\d+ +\d\.\d{4} ", times=3 * started)
        run.kill_a_worker()
        if started == 1:
            run.wait_until("restart 1 begins")
    assert run.end() == 1, run.printed
    assert "restart 2" not in run.printed


def test_a_mistake_ends_before_an_agent_tries_again(root: Path, tmp_path: Path, supervise: Supervisor) -> None:
    run = supervise("data.text.english.path=nowhere", restarts=3)
    assert run.end() == 2
    assert "glm130b: error: data.text.english.path: nowhere" in run.printed
    assert "restart" not in run.printed


@pytest.mark.full
def test_a_run_goes_on_with_fewer_processes(
    root: Path, demo: list[str], command: Command, supervise: Supervisor
) -> None:
    """Four processes, then three: batches of 8 rows can be shared out over two, and the third stands by."""
    words = [*SHORT, *QUICK, "parallel.tensor=1", "parallel.pipeline=1", "parallel.data=largest", "name=shrinking"]

    def torchrun(processes: int, *more: str) -> str:
        start = [BIN / "torchrun", "--nproc-per-node", str(processes), root / "launch" / "pretrain.sh"]
        return command([*start, root / "configs" / "tiny.yaml", *demo, *words, *more])

    assert "TP 1 x PP 1 x DP 4" in torchrun(4, "train_samples=32")
    assert "TP 1 x PP 1 x DP 2" in torchrun(3, "train_samples=64")
    torchrun(4, "train_samples=64", "name=full")
    shrunk, full = metrics(run_folder(demo, "shrinking")), metrics(run_folder(demo, "full"))
    assert [record["step"] for record in shrunk] == list(range(1, 9))
    assert [record["loss"] for record in shrunk] == pytest.approx([record["loss"] for record in full], abs=1e-5)


class Slurm:
    """``launch/slurm.sbatch`` in a folder of its own, between a ``srun`` and a ``scontrol`` that note what they get.
    tests/cluster does it with the real ones."""

    PLACE: ClassVar = {
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NODELIST": "node-[001-002]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS_PER_NODE": "8",
    }

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self.folder = root, folder
        self.errors = ""
        """What the script wrote to stderr the last time."""
        (folder / "bin").mkdir()
        (folder / "launch").symlink_to(root / "launch")
        self._command(
            "srun",
            'case "$*" in *launch/*) exit "$SRUN_STATUS" ;; esac\n'
            'case "$*" in *" preflight "*) echo "$SAID"; exit "$PREFLIGHT_STATUS" ;; esac',
        )
        self._command(
            "scontrol",
            'if [ "$1" = requeue ]; then exit "$REQUEUE_STATUS"; fi\n'
            'if [ "$2" = hostnames ]; then echo node-001; echo node-002; fi\n'
            'if [ "$3" = node ]; then echo "NodeName=$4 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=$4"; fi',
        )

    def _command(self, name: str, then: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f'#!/bin/bash\nprintf "%s\\n" "$MASTER_ADDR {name} $*" >>calls\n{then}\n')
        file.chmod(0o755)

    def calls(self, status: int = 0, preflight: int = 0, **environment: str) -> tuple[int, list[str]]:
        """The script's own status, and the commands that it ran once it knew its first node's address."""
        played = {"SRUN_STATUS": str(status), "PREFLIGHT_STATUS": str(preflight), "SAID": "", "REQUEUE_STATUS": "0"}
        ended = subprocess.run(
            ["bash", self._root / "launch" / "slurm.sbatch", "a.yaml", "seed=7"],
            cwd=self.folder,
            env={"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", **self.PLACE, **played, **environment},
            capture_output=True,
            text=True,
            timeout=90,
        )
        self.errors = ended.stderr
        if not (self.folder / "calls").exists():
            return ended.returncode, []
        calls = (self.folder / "calls").read_text().splitlines()
        (self.folder / "calls").unlink()
        assert calls[:2] == [" scontrol show hostnames node-[001-002]", " scontrol --oneliner show node node-001"]
        assert all(call.startswith("10.0.0.1 ") for call in calls[2:])
        return ended.returncode, [call.partition(" ")[2] for call in calls[2:]]

    def run(self, status: int, **environment: str) -> tuple[int, list[str]]:
        """The script's own status, and the commands that it ran after the run's ``srun``."""
        ended, (srun, *rest) = self.calls(status, GLM130B_PREFLIGHT="no", **environment)
        words = "python3 -u launch/pretrain.sh a.yaml seed=7 supervision.requeue_status=75"
        assert srun == f"srun --cpu-bind=none --kill-on-bad-exit=1 {words}"
        return ended, rest


@pytest.fixture
def slurm(root: Path, tmp_path: Path) -> Slurm:
    return Slurm(root, tmp_path)


@pytest.mark.parametrize("status", [0, 2, 3])
def test_slurm_leaves_alone_what_would_not_get_better(status: int, slurm: Slurm) -> None:
    assert slurm.run(status) == (status, [])


@pytest.mark.parametrize("status", [1, 137])
def test_slurm_starts_a_failure_again_up_to_a_limit_in_a_row(status: int, slurm: Slurm) -> None:
    """A run that has saved begins a new row, however often it was started."""
    requeue = ["scontrol requeue 1234"]
    for told in (status, 75, status, status, 75, 75, 75, status, status):
        assert slurm.run(told, GLM130B_RESTARTS="2", SLURM_RESTART_COUNT="500") == (told, requeue)
    assert slurm.run(status, GLM130B_RESTARTS="2") == (status, [])
    assert f"status {status}, and 3 times in a row: the limit" in slurm.errors
    assert not list(slurm.folder.glob("*.failures"))


def test_slurm_may_refuse_to_start_it_again(slurm: Slurm) -> None:
    """As for a job that was submitted with --no-requeue."""
    assert slurm.run(75, REQUEUE_STATUS="1") == (75, ["scontrol requeue 1234"])
    assert "the job has saved and is not started again: Slurm has refused to" in slurm.errors


def test_slurm_looks_at_config_and_nodes_first(slurm: Slurm) -> None:
    status, (plan, preflight, train) = slurm.calls()
    assert status == 0
    assert plan.endswith(
        "--nodes=1 --ntasks=1 --ntasks-per-node=1 --time=15 glm130b plan a.yaml seed=7 --world-size 16"
    )
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1 " in preflight
    assert preflight.endswith(" glm130b preflight a.yaml seed=7 --world-size 16 --brief")
    assert "launch/pretrain.sh" in train
    for gpus, looked_for in (("8", True), ("a100:8", True), ("0", False)):
        assert ("--brief --gpus 8" in slurm.calls(SLURM_GPUS_PER_NODE=gpus)[1][1]) == looked_for
    _, (preflight, _) = slurm.calls(SLURM_RESTART_COUNT="1")  # the run waits for its files, the config among them
    assert preflight.endswith(" glm130b preflight --world-size 16 --brief --quick")
    status, calls = slurm.calls(preflight=2)
    assert (status, len(calls)) == (2, 2)
    status, calls = slurm.calls(preflight=137)  # a node that died is no unfit one
    assert (status, calls[2]) == (137, "scontrol requeue 1234")


@pytest.mark.parametrize(
    ("said", "unfit"),
    [
        ("0: n1: unfit, 1 of 9 checks failed\n1: n2: fit, 9 checks", "node-001"),
        ("0: n1: fit, 9 checks", "node-002"),  # it hangs, and says nothing
        ("0: n1: unfit, 1 of 9\n1: n2: unfit, 1 of 9", ""),  # no node's fault
    ],
)
def test_slurm_names_the_unfit_nodes(said: str, unfit: str, slurm: Slurm) -> None:
    slurm.calls(preflight=2, SAID=said)
    told = f"glm130b: unfit: {unfit}; leave them out: sbatch --exclude={unfit}\n"
    assert slurm.errors == (told if unfit else "")


def test_slurm_takes_every_step_into_the_container(slurm: Slurm) -> None:
    """No container is started here: what would start one is noted."""
    folder = slurm.folder
    mounts = f"--container-mounts={folder}:{folder},/data:/data,/fast:/fast"
    pyxis = f"srun --cpu-bind=none --container-image=glm.sqsh {mounts} --container-workdir={folder} "
    _, calls = slurm.calls(GLM130B_CONTAINER="pyxis:glm.sqsh", GLM130B_MOUNTS="/data,/fast")
    assert [call.startswith(pyxis) for call in calls] == [True] * 3
    apptainer = f" apptainer exec --nv --bind {folder},/data --pwd {folder} glm.sif "
    _, calls = slurm.calls(GLM130B_CONTAINER="apptainer:glm.sif", GLM130B_MOUNTS="/data", GLM130B_AGENT="torchrun")
    inside = [call.partition(apptainer)[2].split()[:3] for call in calls]
    assert inside == [
        ["glm130b", "plan", "a.yaml"],
        ["glm130b", "preflight", "a.yaml"],
        ["bash", "launch/agent.sh", "torchrun"],
    ]


@pytest.mark.parametrize("wrong", ["CONTAINER=glm.sif", "AGENT=mpirun", "PREFLIGHT=qick", "RESTARTS=abc"])
def test_slurms_switches_have_no_other_values(wrong: str, slurm: Slurm) -> None:
    name, _, value = f"GLM130B_{wrong}".partition("=")
    assert slurm.calls(**{name: value}) == (2, []), "nothing is looked at, nothing started"
    assert slurm.errors.startswith(f"glm130b: error: {name}={value}: is not ")


def test_slurm_warns_the_processes_and_not_the_script(root: Path) -> None:
    assert "#SBATCH --signal=USR1@900" in (root / "launch" / "slurm.sbatch").read_text().splitlines()
