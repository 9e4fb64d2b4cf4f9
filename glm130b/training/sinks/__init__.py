"""Where the records of a run go, on its first rank."""
