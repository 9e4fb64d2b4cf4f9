"""Which source, objective and row every sample is: arithmetic on its index."""
