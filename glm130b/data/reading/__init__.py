"""Documents out of files, with every bad one named."""
