"""``launch/slurm.sbatch`` under a real Slurm of two nodes: it trains, survives, saves before its limit, and gives up on
what would not get better."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from glm130b.checkpoint.lock import RunLock
from tests.cluster.conftest import SAVE_EVERY, STEPS, Cluster
from tests.harness.incidents_run import Run
from tests.harness.slurm import NODES, Job, Slurm
from tests.incidents.conftest import ROWS

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


def ended(run: Run) -> str:
    return (run.folder / "ended").read_text().strip()


def wait_for_checkpoint(job: Job, step: int) -> None:
    job.wait_until(lambda: f"checkpoint saved: step {step}" in job.said)


def test_a_job_trains_over_two_nodes_to_its_end(undisturbed: Run) -> None:
    assert [record["step"] for record in undisturbed.steps] == list(range(1, STEPS + 1))
    assert undisturbed.losses[-1] < undisturbed.losses[0] - 1
    assert ended(undisturbed) == "complete"


@pytest.mark.parametrize("node", NODES)
def test_a_dead_node_costs_a_restart_and_changes_nothing(
    node: str, cluster: Cluster, slurm: Slurm, undisturbed: Run
) -> None:
    """The first node holds the batch script and rank 0, the second one only a task."""
    job = cluster.submit("run")
    wait_for_checkpoint(job, 2 * SAVE_EVERY)
    slurm.kill_node(node)
    job.wait_until(lambda: slurm.state(node).startswith("down"))
    slurm.start_node(node)
    assert job.end() == 0, job.said
    # A minute after the first start's end Slurm ends its step on that node again: a start that is slow is hit by it.
    assert job.restarts in (1, 2), job.said
    run = cluster.run("run")
    assert run.events("resume")[0]["step"] >= 2 * SAVE_EVERY
    assert run.records == undisturbed.records
    assert run.tensors(STEPS) == undisturbed.tensors(STEPS)
    assert ended(run) == "complete"


def shows_step(job: Job, step: int) -> bool:
    return re.search(rf"^ +{step} +\d+\.\d{{4}} ", job.said, re.M) is not None


def test_the_time_limits_warning_saves_and_the_job_goes_on(cluster: Cluster) -> None:
    """The limit is drawn near when the run trains, so that it does not matter how long a start takes; and its user
    shortens the run while it waits, so that it does not matter how long Slurm takes to warn (half a minute)."""
    text = cluster.config.read_text().replace(f"every_steps: {SAVE_EVERY}", "every_steps: 1000000")
    cluster.config = cluster.folder / "config.yaml"
    cluster.config.write_text(text.replace(f"train_samples: {STEPS * ROWS}", "train_samples: 10000000"))
    job = cluster.submit("run", options=("--signal=USR1@50",))
    job.wait_until(lambda: shows_step(job, 3))
    job.update(TimeLimit="1")
    job.wait_until(lambda: job.restarts == 1)
    job.update(TimeLimit="30")
    run = cluster.run("run")
    (saved,) = run.saved_steps
    cluster.config.write_text(text.replace(f"train_samples: {STEPS * ROWS}", f"train_samples: {(saved + 10) * ROWS}"))
    assert ended(run) == "requeue"

    assert job.end() == 0, job.said
    assert "the job has saved and is started again" in job.said
    assert [record["step"] for record in run.steps] == list(range(1, saved + 11))
    assert [event["step"] for event in run.events("resume")] == [saved]
    assert ended(run) == "complete"


@pytest.mark.parametrize("agent", ["torchrun", "deepspeed"])
def test_an_agent_on_every_node_trains_saves_when_warned_and_goes_on(agent: str, cluster: Cluster) -> None:
    """Four processes, tensor-parallel on a node, data-parallel over both; ``scancel --signal`` sends what Slurm sends
    before the limit."""
    two_a_node = ("--ntasks-per-node=2",)
    job = cluster.submit("run", "parallel.tensor=2", options=two_a_node, GLM130B_AGENT=agent)
    wait_for_checkpoint(job, SAVE_EVERY)
    cluster.slurm.command("scancel", "--signal=USR1", str(job.number))
    assert job.end() == 0, job.said
    assert job.restarts == 1, job.said
    assert "TP 2 x PP 1 x DP 2" in job.said
    run = cluster.run("run")
    assert [record["step"] for record in run.steps] == list(range(1, STEPS + 1))
    assert len(run.events("resume")) == 1
    assert ended(run) == "complete"


@pytest.mark.parametrize("agent", ["srun", "torchrun", "deepspeed"])
def test_a_mistake_is_told_once_and_not_tried_again(agent: str, cluster: Cluster) -> None:
    """A layout that does not fit the job, told before anything is started."""
    job = cluster.submit("run", "parallel.pipeline=2", GLM130B_AGENT=agent, GLM130B_PREFLIGHT="full")
    assert job.end() == 2, job.said
    assert job.restarts == 0
    (told,) = [line for line in job.said.splitlines() if "glm130b: error" in line]
    assert "needs 4 processes" in told
    assert "preflight" not in job.said


@pytest.mark.parametrize("agent", ["torchrun", "deepspeed"])
def test_a_mistake_that_only_the_processes_see_is_not_tried_again(agent: str, cluster: Cluster) -> None:
    """Also where the agent ends with 1 whatever its processes end with."""
    job = cluster.submit("run", "parallel.pipeline=2", GLM130B_AGENT=agent)
    assert job.end() == 2, job.said
    assert job.restarts == 0
    assert "needs 4 processes" in job.said


@pytest.mark.parametrize("agent", ["srun", "torchrun", "deepspeed"])
def test_a_path_that_was_never_right_is_not_tried_again(agent: str, cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit("run", f"data.text.words.path={tmp_path}/nowhere", GLM130B_AGENT=agent)
    assert job.end() == 2, job.said
    assert job.restarts == 0
    assert "nowhere is no folder" in job.said


def test_a_mistake_that_one_process_sees_alone_is_not_tried_again(cluster: Cluster) -> None:
    """The first rank finds that the run goes on elsewhere; the second one waits for it, and is ended by Slurm."""
    with ExitStack() as until_it_ends:
        until_it_ends.callback(RunLock.take(cluster.run("run").folder).release)
        job = cluster.submit("run")
        assert job.end() == 2, job.said
    assert job.restarts == 0, job.said
    assert "is at work in it" in job.said


def test_an_unfit_node_ends_the_job_before_it_trains(cluster: Cluster, tmp_path: Path) -> None:
    """The config is right, but what it reads is not there: every node says so."""
    nowhere = tmp_path / "nowhere"
    job = cluster.submit("run", f"data.text.words.path={nowhere}", GLM130B_PREFLIGHT="quick")
    assert job.end() == 2, job.said
    assert job.restarts == 0
    assert len(re.findall(r"^[01]: .*: unfit, ", job.said, re.M)) == 2
    assert str(nowhere) in job.said
    assert not cluster.run("run").folder.exists()
    assert "loss" not in job.said


def test_a_fit_node_trains(cluster: Cluster) -> None:
    job = cluster.submit("run", f"train_samples={3 * ROWS}", GLM130B_PREFLIGHT="quick")
    assert job.end() == 0, job.said
    assert len(re.findall(r"^[01]: .*: fit, ", job.said, re.M)) == 2
    assert ended(cluster.run("run")) == "complete"
