"""Where the voxels of a NIfTI file lie: sform, qform and pixdim to a grid in ITK's world, and back.

Where sform and qform disagree we choose as ITK does, so that the grid is the one every ITK program
sees; what ITK refuses because rounding left the axes a hair from perpendicular is straightened.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flarekd.imaging.findings import Finding
from flarekd.imaging.orientation import nearest_rotation, of_shear
from flarekd.imaging.volume import Geometry

LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI's world is RAS, ITK's LPS."""

_MILLIMETRES = {1: 1000.0, 3: 0.001}

_SAME_SPACING = 0.01
"""Part by which two spacings may differ before it is told."""


def grid(fields: np.void, shape: list[int]) -> tuple[Geometry, list[Finding]]:
    """The grid of a header in LPS, and what is amiss in it.

    Args:
        fields: The header (``nifti_header``).
        shape: Voxels along the stored axes i, j, k, and further ones.

    Raises:
        ValueError: If its axes make no sense.
    """
    found: list[Finding] = []
    unit = _MILLIMETRES.get(int(fields["xyzt_units"]) & 7, 1.0)
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    columns = fields["srow"].astype(np.float64)[:, :3]
    takes_sform = has_sform and (
        not has_qform or (int(fields["sform_code"]) == 1 and _is_orthogonal(columns))
    )
    if takes_sform:
        place = _by_sform(fields)
    elif has_qform:
        place = _by_qform(fields)
    else:
        place = np.eye(3), np.zeros(3)
        what = "says nothing of orientation (sform and qform code 0): left and right are a guess"
        found.append(Finding("doubtful", what, "x is taken to grow to the left, y to the back"))
    spacing = fields["pixdim"][1:4].astype(np.float64)
    if has_sform and _is_orthogonal(columns):
        spacing, more = _spacing(spacing, columns)
        found += more
    found += of_shear(columns) if takes_sform else []
    geometry = _geometry(shape, spacing * unit, place[0], place[1] * unit)
    if has_sform and has_qform:
        taken, other = ("sform", "qform") if takes_sform else ("qform", "sform")
        try:
            direction, origin = _by_qform(fields) if takes_sform else _by_sform(fields)
        except ValueError as error:
            found.append(Finding("doubtful", f"{other}: {error}", f"the {taken} is taken"))
        else:
            theirs = _geometry(shape, spacing * unit, direction, origin * unit)
            found += _disagreement(geometry, theirs, taken)
    return geometry, found


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b, c, d) of a proper rotation, signed so that a ≥ 0."""
    # the eigenvector of this symmetric matrix to eigenvalue 1 is (b, c, d, a), whatever the angle
    m = rotation
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    vector: NDArray[np.float64] = np.linalg.eigh(symmetric / 3.0)[1][:, -1]
    return vector[:3] * (-1.0 if vector[3] < 0 else 1.0)


def _by_sform(fields: np.void) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions and origin by srow, in LPS and the file's unit."""
    srow = fields["srow"].astype(np.float64)
    columns = srow[:, :3] / np.maximum(np.linalg.norm(srow[:, :3], axis=0), 1e-30)
    return LPS @ nearest_rotation(columns), LPS @ srow[:, 3]


def _by_qform(fields: np.void) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions and origin by quaternion, in LPS and the file's unit."""
    rotation = _rotation(fields["quatern"].astype(np.float64))
    rotation[:, 2] *= -1.0 if fields["pixdim"][0] < 0 else 1.0
    return LPS @ nearest_rotation(rotation), LPS @ fields["qoffset"].astype(np.float64)


def _spacing(
    pixdim: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[Finding]]:
    """Pixdim where it means something, else the steps of the sform."""
    steps = np.linalg.norm(columns, axis=0)
    says = f"pixdim says {_shown(pixdim)} mm (x, y, z), sform {_shown(steps)} mm"
    if not (np.isfinite(pixdim).all() and pixdim.min() > 0):
        return steps, [Finding("mended", says, "the sform's is taken")]
    if np.abs(pixdim / steps - 1).max() > _SAME_SPACING:
        return pixdim, [Finding("doubtful", says, "pixdim is taken, as ITK does; compare")]
    return pixdim, []


def _disagreement(ours: Geometry, theirs: Geometry, taken: str) -> list[Finding]:
    distance_mm = float(np.linalg.norm(ours.corners() - theirs.corners(), axis=1).max())
    if distance_mm <= min(ours.spacing_xyz) / 10:
        return []
    what = f"sform and qform lie {distance_mm:.2f} mm apart at the farthest corner"
    mend = f"the {taken} is taken, as ITK does"
    if (ours.axes, ours.flips) != (theirs.axes, theirs.flips):
        return [Finding("doubtful", f"{what}, turned or mirrored", f"{mend}; compare")]
    return [Finding("mended", what, mend)]


def _shown(lengths: NDArray[np.float64]) -> str:
    return "×".join(f"{length:g}" for length in lengths)


def _geometry(
    shape: list[int],
    spacing: NDArray[np.float64],
    direction: NDArray[np.float64],
    origin: NDArray[np.float64],
) -> Geometry:
    i, j, k = shape[:3]
    x_mm, y_mm, z_mm = (float(length) for length in spacing)
    # + 0.0 turns -0.0 into 0.0
    x, y, z = (float(place) + 0.0 for place in origin)
    cosines = tuple(float(cosine) + 0.0 for cosine in direction.ravel())
    return Geometry((i, j, k), (x_mm, y_mm, z_mm), (x, y, z), cosines)


def _is_orthogonal(columns: NDArray[np.float64]) -> bool:
    norms = np.linalg.norm(columns, axis=0)
    if not np.isfinite(norms).all() or norms.min() <= 0:
        return False
    unit = columns / norms
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() < 1e-3)


def _rotation(quatern: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c, d = quatern
    square = 1.0 - b * b - c * c - d * d
    if square < 1e-7:  # a half turn: rounding must not make it shorter
        b, c, d = quatern / np.linalg.norm(quatern)
        square = 0.0
    a = float(np.sqrt(square))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
