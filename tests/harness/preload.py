"""Imported once by the pool's fork server, in the environment of a job without GPUs: each test process starts here."""

# ruff: noqa: E402
import os

from glm130b.environment import Launch, prepare_environment

os.environ["DS_ACCELERATOR"] = "cpu"  # the pool is gloo on the CPU on every machine
prepare_environment(Launch(rank=0, local_rank=0, world_size=1))

import pytest  # noqa: F401  (a process imports its parent's main module again)

import glm130b.parallel.cpu
import glm130b.pretrain  # noqa: F401
