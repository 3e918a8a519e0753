"""Learning from labels that are not complete: what a case has not annotated may be background.

Of a voxel that a partly annotated case leaves unlabelled, only this is known: it is background or
one of the classes that nobody drew there. So these become one class of the case, the rest, whose
probability is the sum of theirs (a marginal loss). All else in the loss stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor


def masks(
    annotated: Mapping[str, Collection[int]], trained_on: Iterable[str], classes: int
) -> dict[str, Tensor]:
    """Which classes each case vouches for, as the loss takes it.

    A class that no case in training has annotated counts as annotated in all of them, and is
    nowhere: as a part of every rest it could take any voxel of the background for itself.

    Args:
        annotated: Case to the outputs its labels vouch for.
        trained_on: The cases in training.
        classes: Outputs of the network, background included.

    Returns:
        Case to bool (classes,); background is never annotated, it belongs to the rest.
    """
    known = {label for case in trained_on for label in annotated.get(case, ())}
    nowhere = set(range(1, classes)) - known
    return {
        case: torch.tensor([label in nowhere or label in ids for label in range(classes)])
        for case, ids in annotated.items()
    }


def merge_rest(logits: Tensor, annotated: Tensor) -> Tensor:
    """Logits in which each sample's rest is one class.

    Softmax of the result gives background the summed probability of background and all classes that
    the sample has not annotated, these themselves nothing, and the others what they had. The
    gradient reaches the merged classes through their sum alone, each by its share of it.

    Args:
        logits: float (n, classes, ...).
        annotated: bool (n, classes), False for background.

    Returns:
        Logits of the same shape, -inf for what is not annotated.
    """
    known = annotated.view(*annotated.shape, *[1] * (logits.ndim - 2))
    rest = logits.masked_fill(known, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat((rest, logits.masked_fill(~known, -torch.inf)[:, 1:]), 1)
