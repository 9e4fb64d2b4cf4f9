"""Where it runs: the grid, and one file per outside door."""
