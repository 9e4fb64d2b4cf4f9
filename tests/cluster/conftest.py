"""One Slurm of two nodes for all tests of this folder, and the tiny run of the incidents as its job."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.harness.incidents_run import Run
from tests.harness.slurm import Job, Slurm, missing, running_slurm
from tests.incidents.conftest import ROWS, corpora
from tests.incidents.conftest import config as incidents_config

__all__ = ["corpora", "incidents_config"]

STEPS, SAVE_EVERY = 200, 20


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if lack := missing():
        if os.environ.get("CI"):
            pytest.fail(f"this is CI, where Slurm has to be: {lack}")
        pytest.skip(f"a real Slurm: {lack}")
    with running_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm


@pytest.fixture(scope="session")
def config(incidents_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The incidents' run with more steps, so that it lasts for some seconds: two ranks, 200 steps, a save every 20."""
    tree = yaml.safe_load(incidents_config.read_text(encoding="utf-8"))
    tree |= {"train_samples": STEPS * ROWS, "checkpoint": {"every_steps": SAVE_EVERY}}
    file = tmp_path_factory.mktemp("config") / "config.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


@dataclass
class Cluster:
    """Submits runs of one config with ``launch/slurm.sbatch``: two nodes, one task on each unless asked otherwise."""

    root: Path
    slurm: Slurm
    config: Path
    folder: Path
    jobs: list[Job] = field(default_factory=list)

    def submit(self, name: str, *overrides: str, options: tuple[str, ...] = (), **environment: str) -> Job:
        """``environment`` names what the script's head offers; the check before the run is left out unless it does."""
        words = [str(self.config), f"folder={self.folder}", f"name={name}", *overrides]
        nodes = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--time=30"]
        variables = {"DS_ACCELERATOR": "cpu", "GLM130B_PREFLIGHT": "no"} | environment
        script = self.root / "launch" / "slurm.sbatch"
        job = self.slurm.submit(script, words, *nodes, *options, cwd=self.root, **variables)
        self.jobs.append(job)
        return job

    def run(self, name: str) -> Run:
        return Run(self.folder / name, [])


@pytest.fixture
def cluster(root: Path, slurm: Slurm, config: Path, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(root, slurm, config, tmp_path)
    yield cluster
    for job in cluster.jobs:
        slurm.command("scancel", str(job.number))
        job.end()


@pytest.fixture(scope="session")
def undisturbed(root: Path, slurm: Slurm, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run to which nothing happens, on both nodes."""
    cluster = Cluster(root, slurm, config, tmp_path_factory.mktemp("undisturbed"))
    job = cluster.submit("run")
    assert job.end() == 0, job.said
    assert job.restarts == 0, job.said
    return cluster.run("run")
