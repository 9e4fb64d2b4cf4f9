"""Where the checks look: this machine, and the run that it is to be fit for."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from glm130b.config.derived import checkpoint_bytes, least_world_size
from glm130b.config.sections import RunConfig


@dataclass(frozen=True)
class Site:
    """One machine and, perhaps, one run."""

    num_gpus: int
    """GPUs that torch can use; 0 makes it a machine that trains on its CPU."""
    config: RunConfig | None = None
    world_size: int | None = None
    """Processes of the whole job, where they are known."""
    expected_gpus: int = 0
    """GPUs of this machine that the job uses; 0 is all that torch can use."""

    @cached_property
    def job_size(self) -> int:
        """Processes of the job: as given, else the fewest that the run needs."""
        return self.world_size or (least_world_size(self.config) if self.config else 1)

    @property
    def num_processes(self) -> int:
        """Those of the job on this machine: one for each GPU; on CPUs all may be here."""
        gpus = self.expected_gpus or self.num_gpus
        return min(gpus or self.job_size, self.job_size) if self.config else max(gpus, 1)

    @property
    def run_folder(self) -> Path | None:
        return Path(self.config.folder) / self.config.name if self.config else None

    @property
    def writable_folder(self) -> Path:
        """The nearest folder that is there already: the run's own, or one above it; without a run the working
        directory."""
        folder = (self.run_folder or Path()).absolute()
        return next(path for path in (folder, *folder.parents) if path.exists())

    @property
    def checkpoint_share_bytes(self) -> int:
        """What this machine's processes hold of a checkpoint."""
        return checkpoint_bytes(self.config) * self.num_processes // self.job_size if self.config else 0
