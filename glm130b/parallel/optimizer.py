"""AdamW and SGD that ask before they change anything, and tell when they have.

DeepSpeed has reduced, unscaled and clipped the gradients when it calls them, and nothing has changed yet: the last
moment to judge a step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from glm130b.config.sections import OptimizerConfig

Ask = Callable[[], bool]
"""Whether to update. DeepSpeed's ZeRO steps one parameter group after the other, and each asks."""
Tell = Callable[[list[dict[str, Any]]], None]
"""Told of the parameter groups that have just been updated, whose gradients are still there."""


class _Asking(torch.optim.Optimizer):
    """Put before an optimizer: it leaves weights and moments alone when the answer is no."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, ask: Ask, tell: Tell, **options: Any) -> None:
        super().__init__(groups, **options)
        self._ask, self._tell = ask, tell

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if self._ask():
            super().step()
            self._tell(self.param_groups)


class AskingAdamW(_Asking, torch.optim.AdamW):
    """PyTorch's."""


class AskingSGD(_Asking, torch.optim.SGD):
    """PyTorch's."""


def build_optimizer(
    config: OptimizerConfig, model: nn.Module, *, device: torch.device, ask: Ask, tell: Tell
) -> AskingAdamW | AskingSGD:
    """AdamW or SGD over two groups, decayed matrices and undecayed vectors; every stage has both, as ZeRO's norm
    needs."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    learning_rate = config.learning_rate.peak  # a placeholder: the engine's `step` sets the scheduled one
    if config.name == "sgd":
        return AskingSGD(groups, ask=ask, tell=tell, lr=learning_rate)
    return AskingAdamW(
        groups,
        ask=ask,
        tell=tell,
        lr=learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=device.type == "cuda",
    )
