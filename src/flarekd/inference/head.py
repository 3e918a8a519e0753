"""The last convolution of a network, set apart from it: memory that does not grow with classes.

A head of 1×1 kernels is linear, so the weighted mean of overlapping windows and the interpolation
between voxels may come before it as well as after it. Where a network has more classes than
features, the features are the fewer numbers to add up and hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BACKGROUND_LOGIT = 20.0
"""Class 0 where no window was run, against 0 of the others: background, all but certainly."""

MOST_CLASSES = 256

_AT_ONCE = 8
"""Classes that are multiplied together: the features are read once for all of them."""

_WEIGHT, _BIAS = "heads.0.weight", "heads.0.bias"


@dataclass(frozen=True, eq=False)
class Head:
    """Makes logits of what a network without its head says.

    Attributes:
        weight: float32 (C, 1 + F), in main memory. Channel 0 of its input is no feature but
            `BACKGROUND_LOGIT` where no window was run, and 0 elsewhere.
        bias: float32 (C, 1).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Head | None:
        """The head of a network, where setting it apart takes less memory.

        Args:
            weights: Of a `StudentUNet`.

        Raises:
            ValueError: If it has more classes than labels have ids.
        """
        own = weights[_WEIGHT].flatten(1).float()
        classes, features = own.shape
        if classes <= features + 1:
            return None
        if classes > MOST_CLASSES:
            message = f"{classes} classes, labels have {MOST_CLASSES} ids"
            raise ValueError(message)
        bias = weights.get(_BIAS, torch.zeros(classes)).float()[:, None]
        # where channel 0 speaks the features are 0, and the bias must not
        unseen = -bias / BACKGROUND_LOGIT
        unseen[0] += 1
        return cls(torch.cat([unseen, own], dim=1), bias)

    def classes(self, channels: Tensor) -> Iterator[Tensor]:
        """The logits (…) of each class in turn, of (1 + F, …); channels that are left out are 0."""
        flat = channels.flatten(1)
        # what is averaged may lie elsewhere than where the network runs
        weight, bias = self.weight[:, : len(flat)].to(flat.device), self.bias.to(flat.device)
        for first in range(0, len(weight), _AT_ONCE):
            these = slice(first, first + _AT_ONCE)
            logits = torch.addmm(bias[these], weight[these], flat)
            yield from logits.view(-1, *channels.shape[1:])


class Features(nn.Module):
    """Stands in a network where its head was: hands on the features, a channel of 0 before them."""

    def forward(self, features: Tensor) -> Tensor:
        """(n, F, z, y, x) to (n, 1 + F, z, y, x)."""
        return functional.pad(features, (0, 0, 0, 0, 0, 0, 1, 0))


def greatest(logits: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """Arg max over classes, uint8 (…), of ties the lower id; and the maximum, which hands NaN on.

    A running maximum, class by class: torch's own argmax across the first axis is several times
    slower, and planes of one class stay in the cache.

    Args:
        logits: Of each class in turn, (…).
    """
    best = next(logits).clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for label, value in enumerate(logits, 1):
        # the label is above all before it: a maximum has 50 times the speed of a masked fill
        torch.maximum(labels, (value > best).view(torch.uint8) * label, out=labels)
        torch.maximum(best, value, out=best)
    return labels, best


def classes(channels: Tensor, head: Head | None) -> Iterator[Tensor]:
    """The logits (…) of each class in turn: of (C, …), or by a head of (1 + F, …)."""
    return iter(channels) if head is None else head.classes(channels)
