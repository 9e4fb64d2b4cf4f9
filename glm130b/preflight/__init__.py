"""Whether a machine, or every machine of a job, is fit to train."""
