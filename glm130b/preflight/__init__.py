"""Is this machine, and every machine of a job, fit for a run."""
