"""What a run read, and where it stands in the files: ``glm130b samples``."""
