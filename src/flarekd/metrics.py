"""DSC and NSD as FLARE 2023 scores them (pure).

The NSD (normalised surface Dice, DeepMind's "surface Dice at tolerance") sees a surface as small
elements, one for each 2×2×2 block of voxels that is neither full nor empty. An element lies at the
block's corner, its area comes from ``surfel_areas``, and it is *close* where the nearest element of
the other surface is no farther than the tolerance. NSD = close area of both surfaces / area of both
surfaces.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from flarekd.labels import LABELS, NAMES, ORGANS, TUMOR

PROTOCOLS: tuple[str, ...] = ("flare23", "corrected")

TUBES: frozenset[int] = frozenset({5, 6, 10})
"""Aorta, IVC and esophagus: scored only on slices where the reference has them."""

FLARE23_LEAST_DSC = 0.2
"""Below this DSC the FLARE 2023 scorer gives NSD 0 without measuring."""

FLARE23_DIGITS = 4

Triple = tuple[float, float, float]
Mask = NDArray[np.bool_]
Points = NDArray[np.intp]


@dataclass(frozen=True)
class ClassScore:
    """One class of one case; fractions, NaN where the protocol leaves it undefined.

    Attributes:
        label: Class id, 1..14.
        dsc: Dice similarity coefficient, 0..1.
        nsd: Normalised surface Dice at the class's tolerance, 0..1.
    """

    label: int
    dsc: float
    nsd: float

    @property
    def name(self) -> str:
        """The class's name in score files."""
        return NAMES[self.label]


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


def surfel_areas(spacing_zyx: Sequence[float]) -> NDArray[np.float64]:
    """The surface area in each of the 256 possible 2×2×2 blocks, by neighbour code.

    Bit ``4·z + 2·y + x`` of a code says that this voxel of the block is inside. The surface cuts
    the block's edges in their middles; a block's area is that of its triangles (marching cubes).

    Args:
        spacing_zyx: Millimetres along z, y, x.

    Returns:
        Areas in mm², float64 (256,).
    """
    z, y, x = spacing_zyx
    # a triangle's area along an axis grows with the spacings of the other two
    return np.asarray(np.linalg.norm(_area_vectors() * [y * x, z * x, z * y], axis=2).sum(axis=1))


@cache
def _area_vectors() -> NDArray[np.float64]:
    """Area vectors of every code's triangles at unit spacing: float64 (256, 4, 3), zero-padded."""
    vectors = np.zeros((256, 4, 3))
    for code in range(1, 255):
        # a block and its complement share one surface: the one that keeps the fewer voxels apart
        fewer = code if code.bit_count() <= 4 else 255 - code
        triangles = [triangle for loop in _loops(fewer) for triangle in _widest(loop)]
        vectors[code, : len(triangles)] = triangles
    return vectors


def _loops(code: int) -> Iterator[list[NDArray[np.float64]]]:
    """The closed polygons in which the surface cuts a block's sides, as edge middles (z, y, x)."""
    follows: dict[tuple[float, ...], tuple[float, ...]] = {}
    for axis, side in product(range(3), (0, 1)):
        corners = np.insert([[0, 0], [1, 0], [1, 1], [0, 1]][:: 1 if side else -1], 0, side, axis=1)
        ring = np.roll(corners, axis, axis=1)  # seen from outside, all six sides turn the same way
        inside = [code >> int(corner @ (4, 2, 1)) & 1 for corner in ring]
        middles = [tuple((ring[i - 1] + ring[i]) / 2) for i in range(4)]
        for first in range(4):
            if inside[first] and not inside[first - 1]:
                end = next(i % 4 for i in range(first + 1, first + 4) if not inside[i % 4])
                follows[middles[first]] = middles[end]
    while follows:
        loop = [next(iter(follows))]
        while loop[-1] in follows:
            loop.append(follows.pop(loop[-1]))
        yield [np.asarray(point) for point in loop[1:]]


def _widest(loop: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Area vectors of the largest triangulation of a loop: the published table's choice."""
    if len(loop) < 3:
        return []
    choices = []
    for k in range(1, len(loop) - 1):
        triangle = np.cross(loop[k] - loop[0], loop[-1] - loop[0]) / 2
        choices.append([triangle, *_widest(loop[: k + 1]), *_widest(loop[k:])])
    return max(choices, key=lambda vectors: float(np.linalg.norm(vectors, axis=1).sum()))


def surface_dice(
    prediction: Mask, reference: Mask, spacing_zyx: Sequence[float], tolerance_mm: float
) -> float:
    """The share of both surfaces that lies within a tolerance of the other (DeepMind's).

    Where a mask touches the border of the array its surface closes there.

    Args:
        prediction: bool (z, y, x).
        reference: bool (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x.
        tolerance_mm: Distances up to and including this one are close.

    Returns:
        0..1, NaN where both are empty.

    Raises:
        ValueError: If the shapes differ or are not three-dimensional.
    """
    _require_one_shape(prediction, reference)
    either = prediction | reference
    if not either.any():
        return math.nan
    box = find_objects(either.view(np.uint8))[0]
    areas = surfel_areas(spacing_zyx)
    codes = [_neighbour_codes(mask[box]) for mask in (prediction, reference)]
    # neither empty (0) nor full (255): 255 + 1 wraps to 0
    points = [np.argwhere(code + np.uint8(1) > 1) for code in codes]
    close_mm2 = total_mm2 = 0.0
    for ours, theirs in ((0, 1), (1, 0)):
        at = tuple(points[ours].T)
        area_mm2 = areas[codes[ours][at]]
        close = codes[theirs][at] + np.uint8(1) > 1  # both have an element here
        apart = np.flatnonzero(~close)
        close[apart] = _close(points[ours][apart], points[theirs], spacing_zyx, tolerance_mm)
        close_mm2 += float(area_mm2[close].sum())
        total_mm2 += float(area_mm2.sum())
    return close_mm2 / total_mm2


def _require_one_shape(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    if prediction.shape != reference.shape or prediction.ndim != 3:
        message = f"arrays are {prediction.shape} and {reference.shape}, not one (z, y, x) shape"
        raise ValueError(message)


def _neighbour_codes(mask: Mask) -> NDArray[np.uint8]:
    """Codes of all 2×2×2 blocks of a mask with emptiness around: uint8, each axis one longer."""
    padded = np.pad(mask, 1).view(np.uint8)
    codes = np.zeros([n - 1 for n in padded.shape], np.uint8)
    for bit, (dz, dy, dx) in enumerate(np.ndindex(2, 2, 2)):
        z, y, x = (slice(d, d + n) for d, n in zip((dz, dy, dx), codes.shape, strict=True))
        codes |= padded[z, y, x] << np.uint8(bit)
    return codes


def _close(
    points: Points, others: Points, spacing_zyx: Sequence[float], tolerance_mm: float
) -> Mask:
    """Which of `points` have one of `others` within the tolerance: bool (n,)."""
    close: Mask = np.zeros(len(points), np.bool_)
    if not len(others):
        return close
    spacing = np.asarray(spacing_zyx)
    tree = cKDTree(others * spacing, balanced_tree=False, compact_nodes=False)
    within_mm = tolerance_mm * (1 + 1e-6) + 1e-9
    _, nearest = tree.query(points * spacing, distance_upper_bound=within_mm)
    found = np.flatnonzero(nearest < len(others))
    # whole voxels times spacing, as a distance map measures: rounding must not part equals
    steps_mm = (points[found] - others[nearest[found]]) * spacing
    close[found] = np.sqrt(np.square(steps_mm).sum(axis=1)) <= tolerance_mm
    return close


def score_case(
    prediction: NDArray[np.uint8], reference: NDArray[np.uint8], spacing_zyx: Triple, protocol: str
) -> list[ClassScore]:
    """Score every class of one case.

    Both empty is 1 and 1, exactly one empty is 0 and 0. Aorta, IVC and esophagus (5, 6, 10) are cut
    to the slices in which the reference has them, so that a tube longer than somebody drew it is
    not punished; z is the canonical axis, ascending to the head.

    ``flare23`` is the official scorer with its quirks: that cut ends *before* the last reference
    slice (the official axis is the stored one; FLARE stores it feet to head, so it is the same
    slice), a DSC below 0.2 gives NSD 0, and both are rounded to 4 digits. A class 5, 6 or 10 that
    the reference has in a single slice is cut to nothing, and the official arithmetic divides 0 by
    0: the score is NaN here too, and ``summarize`` leaves it out instead of losing the whole mean.

    ``corrected`` keeps the cut but with the last slice inside, and neither the 0.2 rule nor the
    rounding.

    Args:
        prediction: uint8 (z, y, x), ids 0..14.
        reference: uint8 (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x, of the reference.
        protocol: ``flare23`` or ``corrected``.

    Returns:
        One record a class, ids 1..14 ascending.

    Raises:
        ValueError: If the shapes differ or the protocol is unknown.

    Source: FLARE 2023's official scorer; the tolerances are those of ``labels.py``.
    """
    if protocol not in PROTOCOLS:
        message = f"protocol is {protocol!r}, known are {', '.join(PROTOCOLS)}"
        raise ValueError(message)
    _require_one_shape(prediction, reference)
    # each class's bounding box, None where it is absent, in one pass over each array
    predicted, drawn = (find_objects(array, max_label=TUMOR) for array in (prediction, reference))
    scores = []
    for label in LABELS:
        ours, theirs = predicted[label.id - 1], drawn[label.id - 1]
        if ours is None or theirs is None:
            value = 1.0 if ours is theirs else 0.0
            scores.append(ClassScore(label.id, value, value))
            continue
        pairs = zip(ours, theirs, strict=True)
        box = [slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs]
        if label.id in TUBES:
            box[0] = slice(theirs[0].start, theirs[0].stop - (protocol == "flare23"))
        masks = (prediction[tuple(box)] == label.id, reference[tuple(box)] == label.id)
        dsc = dice(*masks)
        if protocol == "flare23" and dsc < FLARE23_LEAST_DSC:
            nsd = 0.0
        else:
            nsd = surface_dice(*masks, spacing_zyx, label.tolerance_mm)
        if protocol == "flare23":
            dsc, nsd = round(dsc, FLARE23_DIGITS), round(nsd, FLARE23_DIGITS)
        scores.append(ClassScore(label.id, dsc, nsd))
    return scores


def summarize(records: Iterable[ClassScore]) -> dict[str, Any]:
    """Average scores of many cases as Table 5 does.

    Args:
        records: The scores of all cases, in any order; NaN ones are left out.

    Returns:
        ``{"classes": {name: {"dsc", "nsd"}}, "organs": …, "tumor": …, "all": …}``, fractions: the
        mean over cases of each class, the mean of the 13 organ means, the tumour's mean, and the
        mean of the 14 class means. NaN where there is nothing to average.
    """
    by_label: dict[int, list[dict[str, float]]] = {label.id: [] for label in LABELS}
    for record in records:
        by_label[record.label].append({"dsc": record.dsc, "nsd": record.nsd})
    classes = {label: _mean_of(scores) for label, scores in by_label.items()}
    return {
        "classes": {NAMES[label]: means for label, means in classes.items()},
        "organs": _mean_of([classes[label] for label in ORGANS]),
        "tumor": dict(classes[TUMOR]),
        "all": _mean_of(list(classes.values())),
    }


def _mean_of(entries: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {}
    for key in ("dsc", "nsd"):
        known = [entry[key] for entry in entries if not math.isnan(entry[key])]
        means[key] = math.fsum(known) / len(known) if known else math.nan
    return means
