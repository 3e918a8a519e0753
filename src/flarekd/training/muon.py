"""Muon: steps along the nearest orthogonal matrix to the momentum of each kernel.

A gradient of a kernel is dominated by a few directions; a step that is orthogonal moves along all
of them alike, so what is rare in the data (a small organ, a tumour) is learned in fewer steps.
Keller Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), whose
iteration and coefficients these are; the length of the steps is that of Liu et al., Muon is
scalable for LLM training (2025), so that a learning rate of AdamW serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_ADAM_BETAS = (0.9, 0.999)
_EPSILON = 1e-8

_RMS = 0.2
"""Root mean square of a step over the learning rate: what AdamW's is about."""


class Muon(torch.optim.Optimizer):
    """Muon for kernels of several voxels and input channels, AdamW for all other parameters.

    Args:
        parameters: float32.
        lr: Learning rate of both.
        momentum: Of the kernels, Nesterov's.
        weight_decay: Decoupled, of both.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        settings = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(parameters, settings)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nobody here has one
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if is_kernel(parameter):
                    step = _muon(parameter.grad, state, group["momentum"])
                else:
                    step = _adam(parameter.grad, state)
                parameter.sub_(step, alpha=group["lr"])


def is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter (a, b, …) is a matrix between features rather than a first or last one.

    Kernels of one voxel make logits, those of one channel see the image; both are left to AdamW.
    """
    return parameter.ndim > 2 and parameter[0].numel() > parameter.shape[1] > 1


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1: theirs lie between 0.7 and 1.2.

    Args:
        matrix: float32 (m, n).
    """
    a, b, c = _COEFFICIENTS
    is_tall = len(matrix) > matrix.shape[1]
    # the smaller side first, so that the products are small
    x: Tensor = (matrix.T if is_tall else matrix) / (matrix.norm() + _EPSILON)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _muon(gradient: Tensor, state: dict[str, Any], momentum: float) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    state["momentum"].lerp_(gradient, 1 - momentum)
    ahead = gradient.lerp(state["momentum"], momentum).flatten(1)
    length: float = _RMS * max(ahead.shape) ** 0.5
    return (orthogonal(ahead) * length).view_as(gradient)


def _adam(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    if not state:
        state.update(step=0, mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
    first, second = _ADAM_BETAS
    state["step"] += 1
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].lerp_(gradient.square(), 1 - second)
    mean: Tensor = state["mean"] / (1 - first ** state["step"])
    square: Tensor = state["square"] / (1 - second ** state["step"])
    return mean / (square.sqrt() + _EPSILON)
