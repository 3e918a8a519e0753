"""Multi-label fusion: Eq. 3, 4 and 5 as one function, and the simple fusion they are compared with.

What becomes of a voxel depends on three small numbers alone: the partial label, whether the teacher
saw tumour, and the organ pseudo-label. So the equations are written down once a combination, in a
table of 15 × 2 × 14; labels, their sources and all that is counted are looked up in such tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.labels import ORGANS, TUMOR

Strategy = Literal["paper", "simple"]

NOBODY, HUMAN, TEACHER, PSEUDO, IGNORED = range(5)
"""Where a fused label came from: nowhere (background), a partial label, the tumour pseudo-label, an
organ pseudo-label; or that it is withheld because sources contradict each other."""

SOURCES = ("none", "human", "tumor_pseudo", "organ_pseudo", "ignored")

COMBINATIONS = (TUMOR + 1, 2, TUMOR)
"""Shape of every table: partial label 0..14, tumour pseudo-label no or yes, organ label 0..13."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Rules:
    """What becomes of each combination of the three sources.

    Attributes:
        labels: The fused id, uint8 of shape `COMBINATIONS`.
        sources: Where it came from (`HUMAN` and so on), uint8.
    """

    labels: Labels
    sources: Labels


def rules(annotated: Collection[int], strategy: Strategy = "paper") -> Rules:
    """Write down a fusion for every combination of its sources.

    Args:
        annotated: λ, the ids that the partial label vouches for.
        strategy: As `fuse` (``paper``) or as `fuse_simple` does it.
    """
    labels = np.zeros(COMBINATIONS, np.uint8)
    sources = np.zeros(COMBINATIONS, np.uint8)
    for organ in ORGANS:
        if strategy == "simple" or organ not in annotated:
            labels[:, :, organ], sources[:, :, organ] = organ, PSEUDO
    if strategy == "simple" or TUMOR not in annotated:
        labels[:, 1], sources[:, 1] = TUMOR, TEACHER
    for drawn in range(1, TUMOR + 1):
        # only Eq. 3 lets the teacher's tumour over what a person drew
        below = 1 if strategy == "paper" and TUMOR not in annotated else 2
        labels[drawn, :below], sources[drawn, :below] = drawn, HUMAN
    return Rules(labels, sources)


def fuse(
    partial: Labels, tumor: NDArray[np.bool_], organs: Labels, annotated: Collection[int]
) -> Labels:
    """Complete a partial label map with tumour and organ pseudo-labels (Eq. 3, 4 and 5).

    Precedence per voxel, highest first: tumour pseudo-label (unless the partial label annotates
    tumours), partial label, organ pseudo-label of a class the partial label does not annotate,
    background. An unlabelled case is an empty `partial` that annotates nothing, for which Eq. 3 and
    4 reduce to Eq. 5 (whose second case is printed "θ_o ≠ 0" for θ_t ≠ 0).

    λ says which classes were drawn wherever they are. One that is drawn and not in it was drawn in
    part: what there is of it is evidence like any other (Eq. 3 and 4 ask whether θ_p ≠ 0, not for
    λ), and the rest of it is filled from pseudo-labels.

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
    return look_up(rules(annotated).labels, partial, tumor, organs)


def fuse_simple(partial: Labels, tumor: NDArray[np.bool_], organs: Labels) -> Labels:
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
    return look_up(rules((), "simple").labels, partial, tumor, organs)


def look_up(
    table: NDArray[Any], partial: Labels, tumor: NDArray[np.bool_], organs: Labels
) -> NDArray[Any]:
    """What a table says of every voxel.

    Args:
        table: Any dtype, shape `COMBINATIONS`, such as those of `Rules`.
        partial: As of `fuse`, like the next two.
        tumor: The same.
        organs: The same.

    Returns:
        The table's dtype (z, y, x), a new array.

    Raises:
        ValueError: As `fuse` does.
    """
    found = np.empty(partial.shape, table.dtype)
    flat = np.ascontiguousarray(table).ravel()
    for index, codes in _codes(partial, tumor, organs):
        np.take(flat, codes, out=found[index], mode="clip")  # with "raise" numpy makes a copy
    return found


def count(partial: Labels, tumor: NDArray[np.bool_], organs: Labels) -> NDArray[np.int64]:
    """How many voxels each combination of the sources has, int64 of shape `COMBINATIONS`.

    Raises:
        ValueError: As `fuse` does.
    """
    size = int(np.prod(COMBINATIONS))
    counts = np.zeros(size, np.int64)
    for _, codes in _codes(partial, tumor, organs):
        # most of a scan is background in all three sources
        counts += np.bincount(codes[codes != 0], minlength=size)
    counts[0] = partial.size - counts.sum()
    return counts.reshape(COMBINATIONS)


def contradictions(annotated: Collection[int]) -> NDArray[np.bool_]:
    """Which combinations have the organ pseudo-label contradict the human one.

    That is where both speak of an organ and do not say the same: a person drew an organ and the
    pseudo-label has another or none, or the pseudo-label has an organ that the person annotated,
    and not here. Where tumour goes over both, nobody asks.

    Args:
        annotated: λ, the ids that the partial label vouches for.

    Returns:
        bool of shape `COMBINATIONS`. It means nothing for a case without organ pseudo-label.
    """
    found = np.zeros(COMBINATIONS, bool)
    for organ in ORGANS:
        found[organ] = True
        found[organ, :, organ] = False
        found[0, :, organ] = organ in annotated
    if TUMOR not in annotated:
        found[:, 1] = False
    return found


def thick(
    mask: NDArray[np.bool_], spacing_zyx: tuple[float, ...], radius_mm: float
) -> NDArray[np.bool_]:
    """The parts of a mask into which a ball of a radius fits.

    Two people who draw the same organ differ by a rim; a part that holds a ball is no rim. Beyond
    the array there is no mask.

    Args:
        mask: bool (z, y, x).
        spacing_zyx: Millimetres.
        radius_mm: Of the ball: all voxels whose centres are this near to that of its middle.

    Returns:
        bool (z, y, x), the union of all such balls, a new array.
    """
    found = np.zeros_like(mask)
    for whole in ndimage.find_objects(mask.view(np.uint8)):
        _add_thick(mask[whole], spacing_zyx, radius_mm, found[whole])
    return found


def _add_thick(
    mask: NDArray[np.bool_],
    spacing_zyx: tuple[float, ...],
    radius_mm: float,
    found: NDArray[np.bool_],
) -> None:
    """Set what is thick in `found`, part by part: distances are measured in small boxes."""
    parts, _ = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = np.pad(parts[box] == number, 1)
        depth = ndimage.distance_transform_edt(part, sampling=spacing_zyx)
        middles = depth > radius_mm
        if middles.any():
            far = ndimage.distance_transform_edt(~middles, sampling=spacing_zyx)
            found[box] |= (far <= radius_mm)[1:-1, 1:-1, 1:-1]


def _codes(
    partial: Labels, tumor: NDArray[np.bool_], organs: Labels
) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    """Slice by slice, where each voxel's combination stands in a table; slices fit the caches."""
    _check(partial, tumor, organs)
    for index in range(len(partial)):
        codes = partial[index].astype(np.uint16)
        codes *= 2 * TUMOR
        codes += tumor[index].view(np.uint8) * np.uint8(TUMOR)
        codes += organs[index]
        yield index, codes


def _check(partial: Labels, tumor: NDArray[np.bool_], organs: Labels) -> None:
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
