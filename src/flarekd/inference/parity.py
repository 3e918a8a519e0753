"""How far one runtime's answers are from another's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from flarekd.inference.accumulate import Network, check_network, forward

LEAST_AGREEMENT = 0.9999
"""Share of labels that must be the same; what differs are near ties."""


@dataclass(frozen=True)
class Parity:
    """What comparing two networks found.

    Attributes:
        windows: Number of windows compared.
        difference: Largest difference of a logit.
        agreement: Share of equal labels.
        foreground: Share of equal labels where either finds something; 1 where neither does.
    """

    windows: int
    difference: float
    agreement: float
    foreground: float

    def __str__(self) -> str:
        return (
            f"{self.windows} windows: largest difference of a logit {self.difference:.2g}, "
            f"{self.agreement:.4%} of all labels and {self.foreground:.4%} of foreground agree"
        )


@torch.inference_mode()
def compare(reference: Network, other: Network, windows: Iterable[Tensor]) -> Parity:
    """Run both on the same windows.

    Args:
        reference: Its labels are taken for right.
        other: Is compared.
        windows: float32 (1, 1, …) each.

    Raises:
        ValueError: If there is no window.
    """
    check_network(reference)
    count = voxels = equal = found = found_equal = 0
    difference = 0.0
    for window in windows:
        ours, theirs = (forward(network, window) for network in (reference, other))
        difference = max(difference, float((ours - theirs).abs().max()))
        labels, others = ours.max(1).indices, theirs.max(1).indices
        same, somewhere = labels == others, (labels > 0) | (others > 0)
        count, voxels = count + 1, voxels + same.numel()
        equal += int(same.sum())
        found += int(somewhere.sum())
        found_equal += int((same & somewhere).sum())
    if not count:
        raise ValueError("no window to compare on")
    return Parity(count, difference, equal / voxels, found_equal / found if found else 1.0)
