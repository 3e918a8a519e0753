"""Multi-label fusion: Eq.

3, 4 and 5 as one function, and the simple fusion they are compared with.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from flarekd.labels import ORGANS, TUMOR


def fuse(
    partial: NDArray[np.uint8],
    tumor: NDArray[np.bool_],
    organs: NDArray[np.uint8],
    annotated: Collection[int],
) -> NDArray[np.uint8]:
    """Complete a partial label map with tumour and organ pseudo-labels (Eq. 3, 4 and 5).

    Precedence per voxel, highest first: tumour pseudo-label (unless the partial label annotates
    tumours), partial label, organ pseudo-label of a class the partial label does not annotate,
    background. An unlabelled case is an empty `partial` that annotates nothing, for which Eq. 3 and
    4 reduce to Eq. 5 (whose second case is printed "θ_o ≠ 0" for θ_t ≠ 0).

    Args:
        partial: θ_p, uint8 (z, y, x), the labels a human drew, 0 where nothing was drawn.
        tumor: θ_t, bool (z, y, x), the teacher's tumour.
        organs: θ_o, uint8 (z, y, x), organ pseudo-labels 0..13.
        annotated: λ, the ids that `partial` vouches for, 14 among them where tumours were
            annotated.

    Returns:
        θ, uint8 (z, y, x), ids 0..14, a new array.

    Raises:
        ValueError: If the shapes differ, `organs` holds an id outside 0..13 or `partial` one
            outside 0..14.
    """
    _check(partial, tumor, organs)
    missing = np.zeros(TUMOR + 1, np.uint8)
    wanted = sorted(set(ORGANS) - set(annotated))
    missing[wanted] = wanted
    fused = np.where(partial != 0, partial, missing[organs])
    if TUMOR not in annotated:
        fused[tumor] = TUMOR
    return fused


def fuse_simple(
    partial: NDArray[np.uint8], tumor: NDArray[np.bool_], organs: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Overlay the three sources, the partial label first (§2.2, the ablation's baseline).

    Precedence per voxel, highest first: partial label, tumour pseudo-label, organ pseudo-label. A
    tumour inside an annotated organ therefore stays hidden under it, which is what Eq. 3 mends. The
    paper does not say which of the two pseudo-labels wins outside the partial label; here the
    tumour does.

    Args:
        partial: θ_p, uint8 (z, y, x), ids 0..14.
        tumor: θ_t, bool (z, y, x).
        organs: θ_o, uint8 (z, y, x), ids 0..13.

    Returns:
        θ, uint8 (z, y, x), a new array.

    Raises:
        ValueError: As `fuse` does.
    """
    _check(partial, tumor, organs)
    pseudo = np.where(tumor, np.uint8(TUMOR), organs)
    return np.where(partial != 0, partial, pseudo)


def _check(partial: NDArray[np.uint8], tumor: NDArray[np.bool_], organs: NDArray[np.uint8]) -> None:
    if not partial.shape == tumor.shape == organs.shape:
        shapes = f"{partial.shape}, tumour {tumor.shape} and organ pseudo-label {organs.shape}"
        message = f"partial label {shapes} differ in shape"
        raise ValueError(message)
    for name, array, highest in (
        ("partial label", partial, TUMOR),
        ("organ pseudo-label", organs, 13),
    ):
        found = int(array.max(initial=0))
        if found > highest:
            message = f"the {name} holds id {found}, beyond 0..{highest}"
            raise ValueError(message)
