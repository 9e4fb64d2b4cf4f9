"""The device a process computes on."""

import torch


def open_device(local_rank: int) -> torch.device:
    """This process's GPU, or the CPU on a machine without one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    from glm130b.parallel.cpu import open_cpu_door  # patches Megatron-core on import of its targets: never with a GPU

    open_cpu_door()
    return torch.device("cpu")
