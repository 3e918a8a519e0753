"""Soft Dice + cross-entropy with deep supervision (method.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5

Total = Callable[[Tensor], Tensor]
"""Sums over all processes that share a batch, with gradients: `ranks.Ranks.total_with_gradient`."""


def _own(sums: Tensor) -> Tensor:
    return sums


def soft_dice(logits: Tensor, target: Tensor, total: Total = _own) -> Tensor:
    """Soft Dice of each foreground class over the whole batch ("batch dice", background excluded).

    Args:
        logits: float (n, classes, ...).
        target: int64 (n, ...), 0..classes-1.
        total: Adds up the sums of all processes that hold a part of the batch.

    Returns:
        float (classes - 1,): (2·Σp·t + s) / (Σp + Σt + s) with s = 1e-5 per class.
    """
    probability = torch.softmax(logits.float(), dim=1)
    one_hot = torch.zeros_like(probability).scatter_(1, target.unsqueeze(1), 1.0)
    axes = [0, *range(2, logits.ndim)]
    overlap = (probability * one_hot).sum(axes)
    both = probability.sum(axes) + one_hot.sum(axes)
    overlap, both = total(torch.stack((overlap, both)))
    dice: Tensor = (2 * overlap + SMOOTH) / (both + SMOOTH + 1e-8)
    return dice[1:]


def dice_cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    total: Total = _own,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy minus mean soft Dice, weighted 1:1.

    Args:
        logits: float (n, classes, ...).
        target: int64 (n, ...).
        class_weights: Weight of each class (classes,) in the cross-entropy and, background left
            out, in the mean Dice; None weighs all alike.
        total: As in `soft_dice`.

    Returns:
        The loss, between -1 and infinity, and the soft Dice of each foreground class, detached.
    """
    dice = soft_dice(logits, target, total)
    entropy = functional.cross_entropy(logits.float(), target, weight=class_weights)
    if class_weights is None:
        return entropy - dice.mean(), dice.detach()
    weights = class_weights[1:]
    return entropy - (weights * dice).sum() / weights.sum(), dice.detach()


def deep_supervision_loss(
    outputs: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    class_weights: Tensor | None = None,
    total: Total = _own,
) -> tuple[Tensor, Tensor]:
    """Weighted loss over all decoder levels, targets scaled down to each by nearest neighbour.

    Args:
        outputs: Logits of each level, full resolution first.
        target: int64 (n, ...), full resolution.
        weights: One a level; a level of weight 0 is left out.
        class_weights: As in `dice_cross_entropy`.
        total: As in `soft_dice`.

    Returns:
        The loss, and the soft Dice (classes - 1,) at full resolution.

    Raises:
        ValueError: If there are not as many weights as outputs.
    """
    if len(outputs) != len(weights):
        message = f"{len(weights)} deep supervision weights for {len(outputs)} outputs"
        raise ValueError(message)
    loss, dice = dice_cross_entropy(outputs[0], target, class_weights, total)
    loss = loss * weights[0]
    for logits, weight in zip(outputs[1:], weights[1:], strict=True):
        if weight > 0:
            small = functional.interpolate(
                target.unsqueeze(1).float(), size=logits.shape[2:], mode="nearest-exact"
            )
            coarse, _ = dice_cross_entropy(logits, small.squeeze(1).long(), class_weights, total)
            loss = loss + weight * coarse
    return loss, dice
