"""A folder of DICOM files as one scan: which series, in which order, and is it whole.

Nothing is guessed: where a slice is missing or tilted, two lie at one place, or several series
could be meant, the folder is refused with the numbers that tell why.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.dicom_slice import (
    EXPORT_AGAIN,
    Slice,
    check_syntax,
    read_plane,
    read_slice,
)
from flarekd.imaging.findings import Finding
from flarekd.imaging.orientation import nearest_rotation
from flarekd.imaging.sniff import SEG, is_dicom
from flarekd.imaging.volume import Geometry, Grid, Stored

MOST_TILT_DEGREES = 0.5
"""Slices that shift more than this against their normal were scanned with a tilted gantry."""

LEAST_STEP_MM = 0.01
"""Slices nearer than this lie at the same place."""

GAP_TOLERANCE = 0.1
"""Part of the usual gap that one gap may be off, and never less than 0.1 mm: positions are often
written with one decimal."""

_ORIENTATION_TOLERANCE = 1e-3


def read(folder: Path) -> Stored:
    """Read the one series of a folder, rescaled to HU, in stored order (k, j, i).

    Slice by slice into one array: ITK gives slices of up to eight bytes a voxel.

    Args:
        folder: Holds the files of one series; others may lie beside it if only one is an axial CT
            of more than one slice.

    Returns:
        The array, int16 where every value is an integer that fits, else float32; its grid, and
        what is amiss; k grows along the normal of the slices.

    Raises:
        InputError: If there is no series or no way to tell which, or it is not a whole stack.
    """
    slices, notes = _stack(folder)
    geometry = _geometry(folder, slices)
    first = read_plane(slices[0].path)  # before there is room for all: is it what headers promise?
    stack = np.empty((len(slices), *first.shape), np.int16)
    for index, item in enumerate(slices):
        plane = read_plane(item.path) if index else first
        if stack.dtype == np.int16 and not _fits(plane):
            stack = stack.astype(np.float32)
        with np.errstate(over="ignore"):  # what is no number is told as such later
            stack[index] = plane
    return Stored(stack, geometry, tuple(notes))


def _fits(plane: NDArray[Any]) -> bool:
    """Whether a slice can be held as int16."""
    if plane.dtype == np.int16:
        return True
    with np.errstate(invalid="ignore"):
        return np.array_equal(plane.astype(np.int16), plane)


def voxel_bytes(folder: Path) -> int:
    """Bytes a voxel of the one series of a folder as it is read, from the headers only.

    Raises:
        InputError: As ``read``.
    """
    slices, _ = _stack(folder)
    return 2 if all(item.is_narrow for item in slices) else 4


def read_stack(folder: Path) -> tuple[list[Path], Geometry]:
    """The files of the one series of a folder, in stored order (k), and its grid.

    Raises:
        InputError: As ``read``.
    """
    slices, _ = _stack(folder)
    return [item.path for item in slices], _geometry(folder, slices)


def read_grid(folder: Path) -> Grid:
    """The grid of the one series of a folder, from the headers only.

    Raises:
        InputError: As ``read``.
    """
    slices, notes = _stack(folder)
    return Grid(_geometry(folder, slices), tuple(notes))


def _stack(folder: Path) -> tuple[list[Slice], list[Finding]]:
    """The slices of the series to read, sorted along their normal, and what is amiss with them."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.name[0] != "." and p.is_file())
    except OSError as error:
        mend = "may you read it? check its permissions"
        raise InputError(f"{folder}: cannot be read: {error.strerror}", mend) from error
    series: dict[str, list[Slice]] = {}
    for path in filter(is_dicom, paths):
        # of our SEG beside the series it is of, too, there is nothing to read
        if path.name.upper() != "DICOMDIR" and not path.name.endswith(SEG):
            item = read_slice(path)
            series.setdefault(item.series, []).append(item)
    if not series:
        mend = "give a scan, or the folder that directly holds a series' files"
        raise InputError(f"{folder}: holds no DICOM files", mend)
    slices = _choose(folder, list(series.values()))
    _check_alike(folder, slices)
    normal = slices[0].direction[:, 2]
    slices.sort(key=lambda item: float(item.origin @ normal))
    kept, notes = _without_copies(slices)
    if len(series) > 1:
        what = f"holds {len(series)} series"
        mend = f"the only axial CT is taken, {slices[0].description!r} of {len(kept)} slices"
        notes.append(Finding("mended", what, mend))
    return kept, notes + _doubts(kept)


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], list[Finding]]:
    """Leave out files that show the same voxels at the same place as the one before."""
    normal = slices[0].direction[:, 2]
    kept = slices[:1]
    copies = []
    for item in slices[1:]:
        is_near = float((item.origin - kept[-1].origin) @ normal) < LEAST_STEP_MM
        if is_near and np.array_equal(read_plane(item.path), read_plane(kept[-1].path)):
            copies.append(item.path.name)
        else:
            kept.append(item)
    if not copies:
        return kept, []
    what = f"{len(copies)} slices are there twice, the first {copies[0]}"
    return kept, [Finding("mended", what, "copies with the same voxels are left out")]


def _doubts(slices: list[Slice]) -> list[Finding]:
    found = []
    bare = [item.path.name for item in slices if not item.has_scale]
    if bare:
        what = f"{len(bare)} of {len(slices)} slices lack RescaleSlope or RescaleIntercept"
        found.append(Finding("doubtful", what, "stored values are taken for HU; compare"))
    if any(item.is_lossy for item in slices):
        what = "was compressed with loss (LossyImageCompression)"
        found.append(Finding("doubtful", what, "export the original images if they are kept"))
    return found


def _choose(folder: Path, series: list[list[Slice]]) -> list[Slice]:
    """The one series, or the one axial CT among several."""
    if len(series) == 1:
        return series[0]
    scans = [slices for slices in series if _is_axial_ct(slices)]
    if len(scans) == 1:
        return scans[0]
    listed = "; ".join(
        f"{slices[0].description or slices[0].series or 'unnamed'!r} "
        f"({slices[0].modality or 'no modality'}, "
        f"{'×'.join(map(str, slices[0].size))}×{len(slices)})"
        for slices in series
    )
    what = f"{folder}: holds {len(series)} series, {len(scans)} of them axial CT: {listed}"
    raise InputError(what, "give each series a folder of its own")


def _is_axial_ct(slices: list[Slice]) -> bool:
    first = slices[0]
    axial = abs(first.direction[2, 2]) > math.cos(math.pi / 4)
    return (
        first.modality == "CT"
        and len(slices) > 1
        and first.frames == 1
        and axial
        and first.placed
        and "LOCALIZER" not in first.image_type.upper()
    )


def _check_alike(folder: Path, slices: list[Slice]) -> None:
    """All slices must be single CT images of one size, one spacing and one orientation."""
    first = slices[0]
    for item in slices:
        _check_kind(item)
        if item.size != first.size or not np.allclose(item.spacing[:2], first.spacing[:2], 1e-4):
            what = f"{folder}: {item.path.name} and {first.path.name} differ in size or spacing"
            raise InputError(what, "give each series a folder of its own")
        if np.abs(item.direction - first.direction).max() > _ORIENTATION_TOLERANCE:
            what = f"{folder}: {item.path.name} and {first.path.name} differ in orientation"
            raise InputError(what, "take localizers and reformats out of the folder")


def _check_kind(item: Slice) -> None:
    """It must be one grey image with a place, stored in a way that is read."""
    if item.frames > 1:
        what = f"{item.path}: is a multi-frame DICOM of {item.frames} frames"
        raise InputError(what, "convert it to .nii.gz first, for example with dcm2niix")
    if item.colours > 1:
        what = f"{item.path}: {item.colours} numbers a voxel: a colour picture, no CT"
        raise InputError(what, "export the original images, not screen captures")
    if not item.placed:
        what = f"{item.path}: does not say where in the patient it lies"
        raise InputError(what, "export the original images, not screen captures")
    if not item.spaced:
        what = f"{item.path}: does not say how far apart its voxels are"
        raise InputError(what, "export the original images: they say so")
    check_syntax(item.path, item.syntax)


def _geometry(folder: Path, slices: list[Slice]) -> Geometry:
    """The grid of sorted slices; InputError where they are not an even, upright stack."""
    first, last = slices[0], slices[-1]
    try:
        direction = nearest_rotation(first.direction)
    except ValueError as error:
        raise InputError(f"{folder}: {error}", EXPORT_AGAIN) from error
    thickness = float(first.spacing[2])
    if len(slices) > 1:
        _check_gaps(folder, slices)
        way = last.origin - first.origin
        height = float(way @ direction[:, 2])
        tilt = math.degrees(math.acos(min(1.0, height / float(np.linalg.norm(way)))))
        if tilt > MOST_TILT_DEGREES:
            what = f"{folder}: the gantry was tilted: slices shift by {tilt:.1f}° as they rise"
            raise InputError(what, "correct the tilt first, for example with dcm2niix")
        thickness = height / (len(slices) - 1)
    i, j = first.size
    dx, dy = (float(length) for length in first.spacing[:2])
    x, y, z = (float(place) for place in first.origin)
    cosines = tuple(float(cosine) for cosine in direction.ravel())
    return Geometry((i, j, len(slices)), (dx, dy, thickness), (x, y, z), cosines)


def _check_gaps(folder: Path, slices: list[Slice]) -> None:
    normal = slices[0].direction[:, 2]
    along = int(np.argmax(np.abs(normal)))  # what a viewer shows as the slice's position
    gaps = np.diff([float(item.origin @ normal) for item in slices])
    usual = float(np.median(gaps))
    for gap, lower, upper in zip(gaps, slices, slices[1:], strict=False):
        start, end = float(lower.origin[along]), float(upper.origin[along])
        if gap < LEAST_STEP_MM:
            what = f"{folder}: {lower.path.name} and {upper.path.name} both lie at {start:.2f} mm"
            raise InputError(what, "keep one; several phases need a folder each")
        if abs(gap - usual) <= max(0.1, GAP_TOLERANCE * usual):
            continue
        if gap > usual:
            count = max(1, round(gap / usual) - 1)
            what = (
                f"{folder}: {count} slice{'s' * (count > 1)} missing between {start:.2f} and "
                f"{end:.2f} mm: a gap of {gap:.2f} mm, elsewhere {usual:.2f} mm"
            )
            raise InputError(what, EXPORT_AGAIN)
        what = f"{folder}: uneven slices: {gap:.2f} mm from {start:.2f} to {end:.2f} mm"
        raise InputError(f"{what}, elsewhere {usual:.2f} mm", EXPORT_AGAIN)
