"""A process's place in its job, and what libraries read from its environment. The only reader of environment variables.

A launcher starts one process for each GPU and says so:

    deepspeed, torchrun    set RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT
    srun                   sets SLURM_PROCID, SLURM_LOCALID, SLURM_NTASKS; launch/slurm.sbatch adds the master's address
    plain python           sets nothing: a job of one process
"""

import os
import resource
import socket
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glm130b.config.errors import UserError

_PLACES = (("RANK", "LOCAL_RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"))
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

_NOISE = (
    "(Transformer Engine and )?Apex (is|are) not installed",  # Megatron-core; both are optional
    "full scope is deprecated",  # Megatron-core, about its own default
    "`torch.distributed.all_gather_into_tensor` is deprecated",  # DeepSpeed calls it
    "torch.distributed is disabled, unavailable or uninitialized",  # a checkpoint is read in one process, as is meant
)
"""Beginnings (regular expressions) of warnings that the libraries give on every run and that ask nothing of a user."""


@dataclass(frozen=True)
class Launch:
    """This process's place in the job, as its launcher gave it."""

    rank: int
    """0 up to ``world_size - 1``, unique in the job."""
    local_rank: int
    """0 and up, unique on this machine; the GPU to use."""
    world_size: int
    """Processes in the job."""
    restarts: int = 0
    """How often its supervisor has started the job again."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Launch":
        """The place that a launcher's variables name; without any the only place of a job of one.

        Raises ``UserError`` when some of a launcher's variables are missing or no numbers: the processes would not find
        each other, and each would train alone.
        """
        environment = os.environ if environment is None else environment
        for names in _PLACES:
            values = [environment.get(name, "") for name in names]
            if all(value.isdecimal() for value in values):
                rank, local_rank, world_size = map(int, values)
                return cls(rank, local_rank, world_size, _restarts(environment))
        if any(name in environment for name in _PLACES[0]):
            given = ", ".join(f"{name}={environment.get(name, '')}" for name in _PLACES[0])
            raise UserError(f"{given}: is no place in a job; set all three to whole numbers, or none")
        return cls(rank=0, local_rank=0, world_size=1)


@dataclass(frozen=True)
class MeetingPoint:
    """Where the processes of the job find each other."""

    host: str
    port: int
    kept_by_launcher: bool
    """A server that the launcher keeps over restarts is there already; otherwise rank 0 is to be it."""

    @classmethod
    def from_environment(cls) -> "MeetingPoint":
        """As ``prepare_environment`` has left it."""
        environment = os.environ
        kept = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), kept)


def library_settings() -> dict[str, str]:
    """What this process's libraries are told by its environment, and all processes of a job should be told alike."""
    alike = ("NCCL_", "OMP_NUM_THREADS", "CUDA_DEVICE_MAX_CONNECTIONS", "PYTORCH_", "TORCH_NCCL_", "NVTE_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(alike)}


def prepare_environment(launch: Launch) -> None:
    """Set what torch, Megatron-core and DeepSpeed read from the environment when they are imported.

    A value that the user has set stays. Raises ``UserError`` when nobody has said where the job's first process is.
    """
    environment = os.environ
    if "MASTER_ADDR" not in environment:
        if launch.world_size > 1:
            raise UserError(
                f"MASTER_ADDR: not set in a job of {launch.world_size} processes; start it with deepspeed, torchrun or "
                "launch/slurm.sbatch, or set MASTER_ADDR and MASTER_PORT to the first machine's"
            )
        environment["MASTER_ADDR"], environment["MASTER_PORT"] = "127.0.0.1", str(_free_port())
    place = (launch.rank, launch.local_rank, launch.world_size)
    environment.update(zip(_PLACES[0], map(str, place), strict=True))  # the libraries do not know Slurm's names

    # One kernel queue: a tensor-parallel collective starts before the computation it overlaps with (Megatron-core).
    environment.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    # One process for each GPU or CPU core; torch would give every process all cores.
    environment.setdefault("OMP_NUM_THREADS", "1")
    if environment["MASTER_ADDR"] in _LOOPBACK:
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # gloo would look up the host's name, which may not resolve
    if environment.get("DS_ACCELERATOR") == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # the CPU is asked for on a machine with GPUs
    _allow_open_files()
    for message in _NOISE:
        warnings.filterwarnings("ignore", message=message)

    import torch  # from here on torch reads the settings above

    if not torch.cuda.is_available():
        if environment.get("DS_ACCELERATOR") != "cpu" and Path("/dev/nvidiactl").exists():
            raise UserError(
                f"{socket.gethostname()}: has an NVIDIA GPU that torch cannot use; mend its driver or install a CUDA "
                "build of torch, or set DS_ACCELERATOR=cpu to train on the CPU"
            )
        environment.setdefault("DS_ACCELERATOR", "cpu")  # unset, DeepSpeed warns that it found none


def _allow_open_files() -> None:
    """As many as the system lets this user have: often 1024 unless asked, and every process of a job holds connections
    to the first one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system that does not mean what it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _restarts(environment: Mapping[str, str]) -> int:
    """Counted by torchrun's agent, and by Slurm for a job that was requeued, with an agent in it or without."""
    counts = (environment.get(name, "") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return sum(int(count) for count in counts if count.isdecimal())


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
