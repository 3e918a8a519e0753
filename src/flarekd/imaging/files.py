"""Scans and label maps in files: one door in, one door out, whatever the format.

Formats: ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd`` (read only), ``.nrrd``, and folders of DICOM
files (read only).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging import checks, label_names, nifti
from flarekd.imaging.atomic import replacing
from flarekd.imaging.findings import Finding, admitted
from flarekd.imaging.listing import case_id, list_scans, suffix_of
from flarekd.imaging.orientation import to_canonical, to_stored
from flarekd.imaging.sniff import is_dicom
from flarekd.imaging.volume import Geometry, Grid, LabelMap, Stored, Volume

__all__ = [
    "case_id", "compact", "list_scans", "load_itk", "read_geometry", "read_grid", "read_labels",
    "read_labels_on", "read_stored", "read_volume", "voxel_bytes", "why_torn", "write_labels",
    "write_volume",
]  # fmt: skip

_FORMATS = "use .nii.gz, .nii, .mha, .mhd, .nrrd or a folder of DICOM files"
_INT16 = np.iinfo(np.int16)
_HOLES = "replace them (air is -1024 HU) and save again"
_HOLES_IN_LABELS = "set them to 0 where nothing is labelled, and save it as whole numbers"


def read_volume(path: Path) -> Volume:
    """Read a scan.

    Args:
        path: A file, or a folder that holds one DICOM series.

    Returns:
        The scan in canonical orientation: int16 where every value is an integer that fits, else
        float32. Its ``notes`` say what was mended or is doubtful.

    Raises:
        InputError: If it cannot be read, is not one 3D volume of one number a voxel, has a grid
            that makes no sense, or holds NaN or infinity.
    """
    stored, geometry, notes = read_stored(path)
    return Volume(to_canonical(compact(path, stored), geometry), geometry, notes)


def read_labels(path: Path) -> LabelMap:
    """Read a label map.

    Args:
        path: A file; integers may be stored as floats, and a thousandth off.

    Returns:
        uint8 in canonical orientation.

    Raises:
        InputError: As ``read_volume``, and if a value is no integer from 0 to 255.
    """
    stored, geometry, notes = read_stored(path)
    least, most = _range(path, stored, _HOLES_IN_LABELS)
    mend = "a label map holds ids such as 0 to 14; is this the image, or a probability?"
    if least < -checks.ROUNDING or most > 255 + checks.ROUNDING:
        raise InputError(f"{path}: labels run from {least:g} to {most:g}, not 0 to 255", mend)
    if not _are_integers(stored):
        furthest = _rounding(stored)
        if furthest > checks.ROUNDING:
            raise InputError(f"{path}: labels are no integers: {_fractions(stored)}", mend)
        what = f"labels are up to {furthest:.1g} off whole numbers"
        notes = (*notes, Finding("mended", what, "rounded"))
        stored = np.rint(stored)
    array = to_canonical(stored.astype(np.uint8, copy=False), geometry)
    return LabelMap(array, geometry, notes)


def read_labels_on(path: Path, grid: Geometry) -> LabelMap:
    """Read a label map that must lie on a scan's grid.

    Raises:
        InputError: As ``read_labels``, and if it lies on another.
    """
    labels = read_labels(path)
    mismatch = grid.mismatch(labels.geometry)
    if mismatch:
        told = f"label and image do not match: {mismatch} ({path})"
        raise InputError(told, "re-export the label")
    return labels


def read_geometry(path: Path) -> Geometry:
    """Read the grid of a scan or label map from its header.

    Raises:
        InputError: If the header cannot be read or its grid makes no sense.
    """
    return read_grid(path).geometry


def read_grid(path: Path) -> Grid:
    """Read the grid of a scan or label map from its header, and what is amiss in it.

    Raises:
        InputError: As ``read_geometry``.
    """
    suffix = _checked_suffix(path)
    if not suffix:
        from flarekd.imaging import dicom

        grid = dicom.read_grid(path)
    elif suffix.startswith(".nii"):
        header = nifti.read_header(path)
        grid = Grid(header.geometry, header.notes)
    else:
        from flarekd.imaging import itk

        grid = itk.read_grid(path)
    notes = admitted(path, checks.of_grid(grid.geometry))
    return Grid(grid.geometry, (*grid.notes, *notes))


def why_torn(path: Path) -> str:
    """Why a NIfTI file cannot be read to its end, by a look there; empty where it can.

    It is read where that alone does not tell; other formats are not looked at.
    """
    try:
        if suffix_of(path).startswith(".nii") and not nifti.ends_well(path):
            nifti.read(path)
    except InputError as error:
        return str(error)
    return ""


def voxel_bytes(path: Path) -> int:
    """Bytes a voxel while a scan is read, from its header.

    Raises:
        InputError: If the header cannot be read.
    """
    suffix = _checked_suffix(path)
    if suffix.startswith(".nii"):
        header = nifti.read_header(path)
        is_scaled = (header.slope, header.intercept) != (1.0, 0.0)
        return max(header.dtype.itemsize, 4 if is_scaled else 0)  # scaled it is float32
    from flarekd.imaging import dicom, itk

    return itk.voxel_bytes(path) if suffix else dicom.voxel_bytes(path)


def load_itk() -> None:
    """Load SimpleITK, for a plan of memory to see it."""
    from flarekd.imaging import itk  # noqa: F401


def write_volume(path: Path, volume: Volume) -> None:
    """Write a scan on its own geometry, whole or not at all.

    Args:
        path: The name's ending says the format: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd``.
        volume: Canonical; turned back to the axes of its geometry.

    Raises:
        InputError: If the ending is another, or the file cannot be written.
    """
    _write(path, volume)


def write_labels(path: Path, labels: LabelMap, names: Mapping[int, str] | None = None) -> None:
    """Write a label map on its own geometry as uint8, whole or not at all.

    Args:
        path: As ``write_volume``.
        labels: Canonical.
        names: Id to name; said in the header where the format is NIfTI (``label_names.py``).

    Raises:
        InputError: As ``write_volume``.
        ValueError: If the array is not uint8.
    """
    if labels.array.dtype != np.uint8:
        message = f"labels are {labels.array.dtype}, not uint8"
        raise ValueError(message)
    _write(path, labels, label_names.extension(names) if names else b"")


def _write(path: Path, volume: Volume, extension: bytes = b"") -> None:
    suffix = suffix_of(path)
    if suffix not in {".nii.gz", ".nii", ".mha", ".nrrd"}:
        what = f"{path}: cannot write {suffix or 'a name without an ending'}"
        raise InputError(what, "name it .nii.gz, .nii, .mha or .nrrd")
    stored = to_stored(volume.array, volume.geometry)
    try:
        with replacing(path) as temporary:
            if suffix.startswith(".nii"):
                nifti.write(temporary, stored, volume.geometry, extension)
            else:
                from flarekd.imaging import itk

                itk.write(temporary, stored, volume.geometry)
    except OSError as error:
        mend = "is there space on the disk, and may you write there?"
        raise InputError(f"{path}: cannot be written: {error.strerror or error}", mend) from error


def read_stored(path: Path) -> Stored:
    """Read a file as stored, whatever its values: ``read_volume`` and ``read_labels`` build on it.

    Raises:
        InputError: If it cannot be read, is not one 3D volume of one number a voxel, or has a grid
            that makes no sense.
    """
    suffix = _checked_suffix(path)
    if not suffix:
        from flarekd.imaging import dicom

        stored = dicom.read(path)
    elif suffix.startswith(".nii"):
        stored = nifti.read(path)
    else:
        from flarekd.imaging import itk

        stored = itk.read(path)
    notes = admitted(path, checks.of_grid(stored.geometry))
    return stored._replace(notes=(*stored.notes, *notes))


def _checked_suffix(path: Path) -> str:
    """The ending that says the format, empty for a folder."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        what = "a link that leads nowhere" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {what}", "check the path") from error
    except OSError as error:  # no permission, or links in a circle
        raise InputError(f"{path}: cannot be read: {error.strerror}", "check the path") from error
    if path.is_dir():
        return ""
    suffix = suffix_of(path)
    if not suffix and is_dicom(path):
        mend = f"give its folder, {str(path.parent)!r}: a scan is all the files of a series"
        raise InputError(f"{path}: is one DICOM file", mend)
    if not suffix:
        raise InputError(f"{path}: unknown format {''.join(path.suffixes[-2:])!r}", _FORMATS)
    if size == 0:
        raise InputError(f"{path}: the file is empty", "copy or download it again")
    return suffix


def compact(where: Path | str, stored: NDArray[Any]) -> NDArray[Any]:
    """int16 where every value is an integer that fits, else float32.

    Raises:
        InputError: If a value is NaN, infinite, or too large for float32; it names `where`.
    """
    least, most = _range(where, stored, _HOLES)
    if _INT16.min <= least and most <= _INT16.max and _are_integers(stored):
        return stored.astype(np.int16, copy=False)
    if max(-least, most) > float(np.finfo(np.float32).max):
        what = f"{where}: values run from {least:.3g} to {most:.3g}"
        raise InputError(what, "give CT in HU: is its scale or its byte order wrong?")
    return stored.astype(np.float32, copy=False)


def _are_integers(array: NDArray[Any]) -> bool:
    # slice by slice: no second volume in memory, and a scan of fractions is found out at once
    return array.dtype.kind in "iub" or all(
        bool(np.array_equal(plane, np.rint(plane))) for plane in array
    )


def _rounding(array: NDArray[Any]) -> float:
    """How far a value is from a whole number at most."""
    return max(float(np.abs(plane - np.rint(plane)).max()) for plane in array)


def _fractions(array: NDArray[Any]) -> str:
    """How many voxels are no integer, and the first of them."""
    found = [plane[plane != np.rint(plane)] for plane in array]
    values = np.concatenate(found)
    return f"{values.size:,} of {array.size:,} voxels, such as {values[0]:g}"


def _range(where: Path | str, array: NDArray[Any], mend: str) -> tuple[float, float]:
    """Least and greatest value; InputError where a voxel is no finite number."""
    least, most = float(array.min()), float(array.max())  # NaN comes through both
    if not (math.isfinite(least) and math.isfinite(most)):
        count = int(sum(np.count_nonzero(~np.isfinite(plane)) for plane in array))
        what = f"{where}: {count:,} of {array.size:,} voxels are NaN or infinite"
        raise InputError(what, mend)
    return least, most
