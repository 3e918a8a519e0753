"""Soft Dice + cross-entropy with deep supervision (method.md §5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from flarekd.labels import IGNORE
from flarekd.training.marginal import merge_rest

SMOOTH = 1e-5

_SURE = 100.0
"""A logit so far above the others that softmax leaves nothing for them."""

Total = Callable[[Tensor], Tensor]
"""Sums over all processes that share a batch, with gradients: `ranks.Ranks.total_with_gradient`."""


def _own(sums: Tensor) -> Tensor:
    """The sums of one process that holds the whole batch."""
    return sums


class _Sums(torch.autograd.Function):
    """What cross-entropy and Dice sum over all voxels, in one softmax and one tensor of its size.

    Written out because autograd would keep or make half a dozen tensors as large as the logits (a
    one-hot target, two softmaxes, their products), and making those costs more than computing them.

    With p = softmax(z), t the target and w_t its weight, forward gives Σ -w_t·log p_t and, a class,
    O_c = Σ p_c·[t = c] and P_c = Σ p_c. The gradient of g·(sums) with respect to a voxel's z_c is
    p_c·(gP_c + gE·w_t - m) + [t = c]·(gO_t·p_t - gE·w_t) with m = Σ_k gP_k·p_k + gO_t·p_t.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over float (n, classes, ...) and int64 (n, ...); `weights` is (classes,)."""
        target = target.unsqueeze(1)
        logarithm = torch.log_softmax(logits, dim=1)
        entropy = -(logarithm.gather(1, target) * weights[target]).sum()
        probability = logarithm.exp_()
        hit = probability.gather(1, target)
        # row by row, or a float32 would have to count beyond what it can tell apart
        rows = hit.numel() // hit.shape[-1]
        overlap = hit.new_zeros(rows, logits.shape[1])
        overlap.scatter_add_(1, target.reshape(rows, -1), hit.reshape(rows, -1))
        ctx.save_for_backward(probability, target, weights)
        return entropy, overlap.sum(0), probability.sum([0, *range(2, logits.ndim)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the logits from those of the three sums."""
        by_entropy, by_overlap, by_total = grads
        probability, target, weights = ctx.saved_tensors
        hit = probability.gather(1, target) * by_overlap[target]
        weight = weights[target] * by_entropy
        mean = torch.einsum("nc...,c->n...", probability, by_total).unsqueeze(1) + hit
        common = weight - mean
        gradient = torch.empty_like(probability)
        for label in range(len(by_total)):
            part = slice(label, label + 1)
            torch.mul(probability[:, part], common + by_total[label], out=gradient[:, part])
        return gradient.scatter_add_(1, target, hit - weight), None, None


def dice_cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    total: Total = _own,
    *,
    ignores: bool = False,
    annotated: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy minus mean soft Dice, weighted 1:1.

    The soft Dice of a class, over the whole batch ("batch dice"), is (2·Σp·t + s) / (Σp + Σt + s)
    with s = 1e-5; the mean leaves background out.

    Where samples are partly annotated it is a marginal loss: in each of them background and what is
    not annotated are one class (``marginal.py``), the Dice of a class sums over the samples that
    have it annotated, and the mean is over the classes that one of them has.

    Args:
        logits: float (n, classes, ...).
        target: int64 (n, ...), 0..classes-1.
        class_weights: Weight of each class (classes,) in the cross-entropy and, background left
            out, in the mean Dice; None weighs all alike.
        total: Adds up the sums (1 + 4·classes,) of all processes that hold a part of the batch.
        ignores: Whether the target may hold `IGNORE`: such voxels count nowhere.
        annotated: Which classes each sample vouches for, bool (n, classes), background never; the
            target is 0 where another class may be. None: all vouch for all.

    Returns:
        The loss, between -1 and infinity, and the soft Dice of each foreground class
        (classes - 1,), detached; NaN where no sample has the class annotated.
    """
    classes = logits.shape[1]
    weights = logits.new_ones(classes) if class_weights is None else class_weights
    weights = weights.float()
    logits, withheld = logits.float(), None
    vouched = logits.new_ones(classes)
    if annotated is not None:
        logits, vouched = merge_rest(logits, annotated), annotated.sum(0)
    if ignores:
        logits, target, withheld = _withhold(logits, target)
    sums = _Sums.apply(logits, target, weights)  # type: ignore[no-untyped-call]  # torch's own gap
    counts = torch.bincount(target.flatten(), minlength=classes)
    if withheld is not None:
        counts[0] -= withheld
    joined = total(torch.cat((sums[0][None], sums[1], sums[2], counts, vouched)))
    sizes = [1, classes, classes, classes, classes]
    entropy, overlap, predicted, counts, vouched = torch.split(joined, sizes)
    dice: Tensor = (2 * overlap + SMOOTH) / (predicted + counts + SMOOTH + 1e-8)
    dice, known = dice[1:], vouched[1:] > 0
    # a batch that is ignored as a whole has nothing to divide by
    mean_entropy = entropy.squeeze(0) / (weights * counts).sum().clamp(min=1e-8)
    shares = weights[1:] * known
    mean_dice = (shares * dice).sum() / shares.sum().clamp(min=1e-8)
    return mean_entropy - mean_dice, dice.detach().masked_fill(~known, torch.nan)


def deep_supervision_loss(
    outputs: Sequence[Tensor],
    target: Tensor,
    weights: Sequence[float],
    class_weights: Tensor | None = None,
    total: Total = _own,
    *,
    ignores: bool = False,
    annotated: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Weighted loss over all decoder levels, targets scaled down to each by nearest neighbour.

    Args:
        outputs: Logits of each level, full resolution first.
        target: int64 (n, ...), full resolution.
        weights: One a level; a level of weight 0 is left out.
        class_weights: As in `dice_cross_entropy`.
        total: As in `dice_cross_entropy`.
        ignores: As in `dice_cross_entropy`.
        annotated: As in `dice_cross_entropy`.

    Returns:
        The loss, and the soft Dice (classes - 1,) at full resolution.

    Raises:
        ValueError: If there are not as many weights as outputs.
    """
    if len(outputs) != len(weights):
        message = f"{len(weights)} deep supervision weights for {len(outputs)} outputs"
        raise ValueError(message)
    cost = partial(
        dice_cross_entropy,
        class_weights=class_weights,
        total=total,
        ignores=ignores,
        annotated=annotated,
    )
    loss, dice = cost(outputs[0], target)
    loss = loss * weights[0]
    for logits, weight in zip(outputs[1:], weights[1:], strict=True):
        if weight > 0:
            coarse, _ = cost(logits, _shrink(target, logits.shape[2:]))
            loss = loss + weight * coarse
    return loss, dice


def _withhold(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Make ignored voxels background that is predicted for certain: it adds to no sum.

    Returns:
        Logits with no gradient there, a target without `IGNORE`, and how many voxels it had.
    """
    ignored = target == IGNORE
    sure = logits.new_full((logits.shape[1], *[1] * (logits.ndim - 2)), -_SURE)
    sure[0] = _SURE
    logits = torch.where(ignored.unsqueeze(1), sure, logits)
    return logits, target.masked_fill(ignored, 0), ignored.sum()


def _shrink(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Labels (n, ...) at another size: those of the nearest voxels, the upper of two."""
    for axis, (have, want) in enumerate(zip(target.shape[1:], shape, strict=True), start=1):
        nearest = (2 * torch.arange(want, device=target.device) + 1) * have // (2 * want)
        target = target.index_select(axis, nearest)
    return target
