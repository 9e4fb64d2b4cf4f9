"""glm130b: train GLM-130B-style models, from a laptop CPU to 768 A100s."""

__version__ = "0.1.0"
