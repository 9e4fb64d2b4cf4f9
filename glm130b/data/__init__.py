"""What a batch is: a pure function of (config, seed, sample index)."""
