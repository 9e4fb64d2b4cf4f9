"""The door to the CPU: what Megatron-core and DeepSpeed hard-wire to CUDA, opened for machines without a GPU.

Imported only when there is no GPU. Each line names what it opens; nothing on disk is changed.
"""

import logging
from typing import Any

import deepspeed.ops
import megatron.core.pipeline_parallel.schedules as schedules
import megatron.core.tensor_parallel.random as megatron_random
import torch
from deepspeed.accelerator import get_accelerator


class _TorchOnCpu:
    """``torch`` as Megatron's schedules see it: ``device="cuda"`` in ``torch.zeros`` means the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        return torch.zeros(*size, **options)


def open_cpu_door(num_threads: int = 1) -> None:
    """Let Megatron-core and DeepSpeed run on this machine's CPU. Calling it twice does no harm."""
    if torch.cuda.is_available():
        raise RuntimeError("the CPU door must stay closed on a machine with a GPU")
    torch.set_num_threads(num_threads)

    # Weights and receive buffers are made on `torch.cuda.current_device()`.
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment, return-value]
    torch.cuda.synchronize = lambda device=None: None
    schedules.torch = _TorchOnCpu()

    # The dropout streams are kept as CUDA random states.
    torch.cuda.manual_seed = lambda seed: torch.manual_seed(seed)  # type: ignore[assignment]
    torch.cuda.get_rng_state = lambda device="cuda": torch.get_rng_state()
    torch.cuda.set_rng_state = lambda new_state, device="cuda": torch.set_rng_state(new_state)
    megatron_random._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: torch.set_rng_state(state)
    # It warns whenever a fork of a stream moves the CPU's state; here that is what a fork does, and undoes.
    logging.getLogger(megatron_random.__name__).setLevel(logging.ERROR)

    # DeepSpeed would compile a shared-memory all-reduce (20 s, needs a compiler), and refuses fp16 where the CPU has no
    # fast one.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    get_accelerator().is_fp16_supported = lambda: True
