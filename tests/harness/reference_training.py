"""The oracle of training: every step sees its whole batch in one process, with nothing but PyTorch's own optimizers.

A step's loss is the mean over the rows of the batch of the row's loss, which is the mean over the row's loss tokens. A
layout of the library is right when it gives the same losses, gradient norms and weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glm130b.data.objectives.row import Row
from tests.harness.reference_glm import ReferenceGLM, row_losses


@dataclass(frozen=True)
class Step:
    """What one step is given."""

    rows: Sequence[Row]
    learning_rate: float
    input_alpha: float = 1.0
    """Factor on the embedding gradient of the token look-up."""
    logit_alpha: float = 1.0
    """Factor on the embedding gradient of the output projection."""


@dataclass(frozen=True)
class StepResult:
    """What one step reports."""

    loss: float
    """Of the weights before the step."""
    gradient_norm: float
    """L2 over all parameters, the tied embedding counted once, before clipping."""


def train(
    model: ReferenceGLM,
    steps: Iterable[Step],
    *,
    optimizer: Literal["adamw", "sgd"],
    clip_gradient_norm: float,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    epsilon: float = 1e-8,
    micro_size: int | None = None,
) -> list[StepResult]:
    """Train ``model`` in place; one result per step.

    ``micro_size`` rows are computed at a time (all when None), which changes memory and rounding only. Matrices and the
    embedding are decayed, biases and LayerNorms are not.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    stepper: torch.optim.Optimizer
    if optimizer == "adamw":
        stepper = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=epsilon)
    else:
        stepper = torch.optim.SGD(groups, lr=0.0)

    results = []
    for step in steps:
        stepper.zero_grad()
        loss = backward(model, step, micro_size=micro_size)
        gradient_norm = clip_gradients(parameters, clip_gradient_norm)
        for group in stepper.param_groups:
            group["lr"] = step.learning_rate
        stepper.step()
        results.append(StepResult(loss=loss, gradient_norm=gradient_norm))
    return results


def backward(model: ReferenceGLM, step: Step, *, micro_size: int | None = None) -> float:
    """Add the gradient of the step's loss to ``.grad`` of every parameter; the loss."""
    num_rows = len(step.rows)
    micro_size = micro_size or num_rows
    total = 0.0
    for first in range(0, num_rows, micro_size):
        loss = rows_loss(model, step.rows[first : first + micro_size], step).sum() / num_rows
        loss.backward()
        total += loss.item()
    return total


def rows_loss(model: ReferenceGLM, rows: Sequence[Row], step: Step) -> Tensor:
    """Loss [B] of each of some rows of the step; a row without loss tokens has loss 0."""
    device = next(model.parameters()).device

    def stack(arrays: Iterable[NDArray[np.generic]]) -> Tensor:
        return torch.from_numpy(np.stack(list(arrays))).to(device)

    loss_mask_BS = stack(row.loss_mask for row in rows)
    logits_BSV = model(
        stack(row.tokens for row in rows),
        stack(np.stack((row.positions, row.block_positions)) for row in rows),
        [row.segments for row in rows],
        input_alpha=step.input_alpha,
        logit_alpha=step.logit_alpha,
    )
    loss_weights_BS = loss_mask_BS.to(logits_BSV.dtype) / loss_mask_BS.sum(dim=1, keepdim=True).clamp(min=1)
    return row_losses(logits_BSV, stack(row.targets for row in rows), loss_weights_BS)


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], maximum_norm: float) -> float:
    """Scale the gradients so that their global L2 norm is at most ``maximum_norm``; the norm before.

    The coefficient is ``min(1, maximum / (norm + 1e-6))``, as PyTorch and DeepSpeed have it.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = sum(gradient.double().square().sum().item() for gradient in gradients) ** 0.5
    coefficient = min(1.0, maximum_norm / (norm + 1e-6))
    for gradient in gradients:
        gradient.mul_(coefficient)
    return norm
