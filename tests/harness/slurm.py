"""A Slurm of its own on this machine: munged, slurmctld and one slurmd a node, in a folder, on free ports, as root.

All nodes are this machine, at 127.0.0.1, and their names resolve nowhere. Everything that belongs to it, up to the
tasks of its jobs, carries its SLURM_CONF in the environment; that is how it is found and ended, by process id.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NODES = ("n1", "n2")
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_PATH = os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"])
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until the credentials of its last start have expired: by default two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
# A node that does not answer for so long is down; one that comes back is taken back.
SlurmdTimeout=15
ReturnToService=2
KillWait=5
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports} CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What a Slurm cannot be started without and is not here; empty when all is."""
    programs = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if programs:
        return f"{', '.join(programs)} not installed (make system-packages)"
    return "" if os.geteuid() == 0 else "needs root"


@dataclass
class Slurm:
    """The cluster, up from the time ``running_slurm`` gives it."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of the daemons and of the user's commands."""
        own = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH, "HOME": str(self.folder)}
        return own | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}

    def command(self, *words: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
        """What one of Slurm's commands prints."""
        finished = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=self.environment | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, f"{words}: {finished.stdout}"
        return finished.stdout

    def submit(self, script: Path, words: Sequence[str], *options: str, cwd: Path, **environment: str) -> "Job":
        """``sbatch`` in ``cwd``; ``environment`` reaches the job."""
        log = self.folder / f"job-{secrets.token_hex(4)}.log"
        command = ["sbatch", "--parsable", f"--output={log}", *options, str(script), *words]
        return Job(self, int(self.command(*command, cwd=cwd, environment=environment)), log)

    def start_node(self, name: str) -> None:
        self._start(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """As a machine without power: its daemon, the keepers of its tasks and the tasks are gone, and say nothing."""
        tasks = [process for process in self._processes() if _environment(process).get("SLURMD_NODENAME") == name]
        parents = [parent for task in tasks for parent in task.parents() if parent.name() == "slurmstepd"]
        self.daemons[name].kill()
        for process in [*dict.fromkeys(parents), *tasks]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.daemons[name].wait()

    def state(self, node: str) -> str:
        return self.command("sinfo", "--noheader", f"--nodes={node}", "--format=%T").strip()

    def start(self) -> None:
        """Raises ``AssertionError`` with the daemons' own words when the nodes do not come up."""
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(256))
        key.chmod(0o600)
        controller_port, *node_ports = _free_ports(1 + len(NODES))
        configuration = _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=self.folder,
            controller_port=controller_port,
            nodes=",".join(NODES),
            node_ports=",".join(map(str, node_ports)),
        )
        (self.folder / "slurm.conf").write_text(configuration)
        (self.folder / "state").mkdir()
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder / 'munge'}.{suffix}" for option, suffix in files.items()]
        self._start("munged", "munged", "--foreground", "--force", *options)
        wait_until((self.folder / "munge.socket").exists, 90, self.logs)
        self._start("slurmctld", "slurmctld", "-D", "-c")
        for name in NODES:
            self.start_node(name)
        wait_until(self._is_idle, 180, self.logs)

    def stop(self) -> None:
        """Everything that was started here, daemons first so that they start nothing anew."""
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def logs(self) -> str:
        return "".join(f"{file.name}:\n{file.read_text()[-3000:]}\n" for file in sorted(self.folder.glob("*.out")))

    def _start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                words, cwd=self.folder, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def _is_idle(self) -> bool:
        with suppress(AssertionError, subprocess.TimeoutExpired):  # nobody answers before the controller is up
            return all(self.state(node) == "idle" for node in NODES)
        return False

    def _processes(self) -> Iterator[psutil.Process]:
        own = self.environment["SLURM_CONF"]
        return (process for process in psutil.process_iter() if _environment(process).get("SLURM_CONF") == own)


@dataclass(frozen=True)
class Job:
    """A batch job, over all its restarts."""

    slurm: Slurm
    number: int
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def facts(self) -> dict[str, str]:
        """What ``scontrol show job`` knows: JobState, Restarts, ExitCode, ..."""
        shown = self.slurm.command("scontrol", "--oneliner", "show", "job", str(self.number))
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    @property
    def restarts(self) -> int:
        return int(self.facts["Restarts"])

    def update(self, **facts: str) -> None:
        words = [f"{name}={value}" for name, value in facts.items()]
        self.slurm.command("scontrol", "update", f"JobId={self.number}", *words)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 150.0) -> None:
        wait_until(condition, seconds, lambda: f"{self.facts}\n{self.said}")

    def end(self) -> int:
        """The status that the script ended with, once Slurm has done with the job."""
        self.wait_until(lambda: self.facts["JobState"] in _OVER, 240)
        return int(self.facts["ExitCode"].partition(":")[0])


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """A Slurm in ``folder``, gone at the end with all that its jobs have left."""
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def wait_until(condition: Callable[[], bool], seconds: float, tell: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for nothing\n{tell()}"
        time.sleep(0.2)


def _environment(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error):  # another one's, or gone meanwhile
        return process.environ()
    return {}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(taken.getsockname()[1]) for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports
