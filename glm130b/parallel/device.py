"""The device a process computes on."""

import torch

from glm130b.config.errors import UserError


def open_device(local_rank: int) -> torch.device:
    """This process's GPU, or the CPU on a machine without one. Raises UserError when it has no GPU of its own."""
    if torch.cuda.is_available():
        if local_rank >= (found := torch.cuda.device_count()):
            raise UserError(
                f"process {local_rank} of this machine sees {found} GPUs; start as many processes as there are GPUs "
                "and let each see all of them, or set DS_ACCELERATOR=cpu to train on the CPU"
            )
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    from glm130b.parallel.cpu import open_cpu_door  # it changes how Megatron-core works: never with a GPU

    open_cpu_door()
    return torch.device("cpu")
