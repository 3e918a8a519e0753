"""What can be said against a grid, voxels, labels, and a label map on a scan: pure functions.

What is wrong with a file's bytes or header is found by the reader of its format.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.extents import count_ids
from flarekd.imaging.findings import Finding
from flarekd.imaging.intensity import not_ct_reason
from flarekd.imaging.volume import Geometry
from flarekd.labels import BY_ID, IGNORE

MOST_EXTENT_MM = 4000.0
"""No table is longer: the unit of the spacing must be wrong, and resampling would fill memory."""

USUAL_SPACING_MM = (0.1, 15.0)
"""CT of people is made within these."""

LEAST_SLICES = 8
"""Fewer show a 3D network next to nothing."""

ROUNDING = 1e-3
"""A label this near a whole number is that number, written through a float or a scale factor."""

_SPACING = "mend the header: without a true spacing nothing can be measured"


def of_grid(geometry: Geometry) -> list[Finding]:
    """Size, spacing and origin."""
    spacing, size = geometry.spacing_xyz, geometry.size_xyz
    shown = "×".join(f"{length:g}" for length in spacing)
    if not all(math.isfinite(length) and length > 0 for length in spacing):
        return [Finding("refused", f"spacing is {shown} mm (x, y, z)", _SPACING)]
    if not all(map(math.isfinite, geometry.origin_xyz)):
        return [Finding("refused", f"origin is {geometry.origin_xyz} mm (x, y, z)", _SPACING)]
    voxels = "×".join(map(str, size))
    if min(size) < 1:
        what = f"{voxels} voxels (x, y, z): there are none"
        return [Finding("refused", what, "check that the right file was exported")]
    if sorted(size)[1] == 1:
        what = f"{voxels} voxels (x, y, z): a line, not a scan"
        return [Finding("refused", what, "check that the right file was exported")]
    extent = max(count * length for count, length in zip(size, spacing, strict=True))
    if extent > MOST_EXTENT_MM:
        what = f"{voxels} voxels of {shown} mm are {extent / 1000:.1f} m long"
        return [Finding("refused", what, "mend the spacing in the header; its unit is mm")]
    found = []
    least, most = USUAL_SPACING_MM
    if min(spacing) < least or max(spacing) > most:
        what = f"spacing is {shown} mm (x, y, z), for CT between {least:g} and {most:g} mm"
        found.append(Finding("doubtful", what, "compare it with the original images"))
    slices = geometry.shape_zyx[0]
    if slices < LEAST_SLICES:
        what = f"only {slices} slice{'s' * (slices > 1)}, too few for a 3D network to be trusted"
        found.append(Finding("doubtful", what, "give the whole scan"))
    return found


def of_scan(array: NDArray[Any]) -> list[Finding]:
    """Whether intensities look like CT in HU (``not_ct_reason``)."""
    reason = not_ct_reason(array)
    if reason is None:
        return []
    what = f"does not look like CT in Hounsfield units: {reason}"
    return [Finding("doubtful", what, "give CT in HU, rescaled as its DICOM files say")]


def present(labels: NDArray[np.uint8]) -> list[int]:
    """The ids that occur, ascending, without background.

    Args:
        labels: Ids (z, y, x).
    """
    counts = count_ids(labels).sum(axis=0)
    return [int(label) for label in np.flatnonzero(counts) if label]


def of_labels(labels: NDArray[np.uint8]) -> list[Finding]:
    """Whether there is a label at all, and of our classes only.

    Args:
        labels: Ids (z, y, x).
    """
    found = present(labels)
    unknown = [label for label in found if label not in BY_ID and label != IGNORE]
    if unknown:
        what = f"label ids {unknown} are not among 0..{max(BY_ID)}"
        return [Finding("refused", what, "map them to the ids of flarekd, or set them to 0")]
    if not found:
        return [Finding("doubtful", "nothing is labelled", "treated as a scan without labels")]
    if IGNORE in found:
        what = f"{IGNORE} is what `fuse --ignore`, or a data set's ignore label, leaves open"
        mend = "right in fused labels; in label files say so in groups.yaml"
        return [Finding("doubtful", what, mend)]
    return []


def of_pair(image: Geometry, labels: Geometry) -> list[Finding]:
    """Whether a label map lies on its scan's grid."""
    mismatch = image.mismatch(labels)
    if mismatch is None:
        return []
    mend = "draw or export it again on this very scan"
    if is_slip(image, labels):
        mend = "less than half a voxel: `flarekd check --fix DIR` writes it on the scan's own grid"
    return [Finding("refused", f"label and image do not match: {mismatch}", mend)]


def is_slip(image: Geometry, labels: Geometry) -> bool:
    """Whether two grids of one size differ by less than half a voxel anywhere.

    That is a header's rounding: each label still lies on the voxel it was drawn on.
    """
    if image.size_xyz != labels.size_xyz:
        return False
    distance_mm = np.linalg.norm(image.corners() - labels.corners(), axis=1).max()
    return bool(distance_mm < min(image.spacing_xyz) / 2)
