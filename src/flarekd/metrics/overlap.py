"""How much of two masks is common (pure)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice(prediction: Mask, reference: Mask) -> float:
    """Twice the common voxels over the sum of both.

    Args:
        prediction: bool, any shape.
        reference: bool, the same shape.

    Returns:
        0..1, NaN where both are empty.
    """
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(prediction & reference)) / total if total else math.nan
