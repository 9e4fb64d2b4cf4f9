"""Who watches the processes of a run, and when it ends before its end."""

from pydantic import Field

from glm130b.config.section import Section


class SupervisionConfig(Section):
    """A run that hangs ends, a run that is asked to end saves first, a rank that is slow is named."""

    silence_seconds: float = Field(default=60.0, gt=0)
    """A process that gives no sign of life for so long ends the job, by name of rank, host and phase."""
    stall_seconds: float = Field(default=1800.0, gt=0)
    """And so does one that stays in one phase, such as one reduction or one save, for so long; and a save beside
    training of which no rank writes or deletes anything for so long."""
    slow_rank_factor: float = Field(default=2.0, gt=1)
    """A rank whose own arithmetic takes this many times the ranks' median is named."""
    slow_rank_steps: int = Field(default=10, ge=1)
    """Steps over which its pace is taken."""
    invariants_every_steps: int | None = Field(default=None, ge=1)
    """Check that what should be equal on several processes is, every so many steps; null does not."""
    time_budget_minutes: float | None = Field(default=None, gt=0)
    """Save and end, to be started again, when the process is so old."""
    requeue_status: int = Field(default=0, ge=0, le=255)
    """Exit status of a run that has saved and wants to be started again; the file ``ended`` in the run's folder says
    ``requeue`` then, whatever the status."""
    restart_delay_seconds: float = Field(default=5.0, ge=0)
    """Wait before the first restart of a job by its supervisor; it doubles with each further one, up to 5 minutes."""
