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
from flarekd.imaging import label_names, nifti
from flarekd.imaging.atomic import replacing
from flarekd.imaging.orientation import to_canonical, to_stored
from flarekd.imaging.volume import Geometry, LabelMap, Volume

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
"""What a scan's name may end in, in any case."""

_FORMATS = "use .nii.gz, .nii, .mha, .mhd, .nrrd or a folder of DICOM files"
_INT16 = np.iinfo(np.int16)


def read_volume(path: Path) -> Volume:
    """Read a scan.

    Args:
        path: A file, or a folder that holds one DICOM series.

    Returns:
        The scan in canonical orientation: int16 where every value is an integer that fits, else
        float32.

    Raises:
        InputError: If it cannot be read, is not one 3D volume of one number a voxel, or holds NaN
            or infinity.
    """
    stored, geometry = _read(path)
    return Volume(to_canonical(_compact(path, stored), geometry), geometry)


def read_labels(path: Path) -> LabelMap:
    """Read a label map.

    Args:
        path: A file; integers may be stored as floats.

    Returns:
        uint8 in canonical orientation.

    Raises:
        InputError: As ``read_volume``, and if a value is no integer from 0 to 255.
    """
    stored, geometry = _read(path)
    least, most = _range(path, stored)
    mend = "a label map holds ids such as 0 to 14; is this the image, or a probability?"
    if least < 0 or most > 255:
        raise InputError(f"{path}: labels run from {least:g} to {most:g}, not 0 to 255", mend)
    if not _are_integers(stored):
        raise InputError(f"{path}: labels are no integers: {_fractions(stored)}", mend)
    return LabelMap(to_canonical(stored.astype(np.uint8, copy=False), geometry), geometry)


def read_geometry(path: Path) -> Geometry:
    """Read the grid of a scan or label map from its header.

    Raises:
        InputError: If the header cannot be read or its grid makes no sense.
    """
    suffix = _checked_suffix(path)
    if not suffix:
        from flarekd.imaging import dicom

        geometry = dicom.read_geometry(path)
    elif suffix.startswith(".nii"):
        geometry = nifti.read_header(path).geometry
    else:
        from flarekd.imaging import itk

        geometry = itk.read_geometry(path)
    _check_grid(path, geometry)
    return geometry


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
    suffix = _suffix(path)
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


def case_id(path: Path) -> str:
    """The case a file or folder belongs to: its name without the ending and FLARE's ``_0000``.

    >>> case_id(Path("imagesTr/FLARE23_0123_0000.nii.gz"))
    'FLARE23_0123'
    """
    suffix = _suffix(path)
    name = path.name[: -len(suffix)] if suffix else path.name
    return name.removesuffix("_0000") or name


def list_scans(folder: Path) -> dict[str, Path]:
    """Find the scans of a folder: files by their ending, and subfolders that hold DICOM files.

    A folder that itself holds a DICOM series is one scan. Names that begin with a dot are passed
    over: they are what a killed run or a file manager left.

    Args:
        folder: Looked into one level deep.

    Returns:
        Case id to file or DICOM folder, sorted by case id; empty where there is none.

    Raises:
        InputError: If the folder is not there, or two scans have the same case id.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "check the path")
    from flarekd.imaging.sniff import holds_dicom

    scans: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not (holds_dicom(path) if path.is_dir() else _suffix(path)):
            continue
        case = case_id(path)
        if case in scans:
            what = f"{folder}: {scans[case].name} and {path.name} are both case {case!r}"
            raise InputError(what, "keep one of the two, or rename it")
        scans[case] = path
    if not scans and holds_dicom(folder):
        return {case_id(folder.resolve()): folder}
    return dict(sorted(scans.items()))


def _read(path: Path) -> tuple[NDArray[Any], Geometry]:
    suffix = _checked_suffix(path)
    if not suffix:
        from flarekd.imaging import dicom

        stored, geometry = dicom.read(path)
    elif suffix.startswith(".nii"):
        stored, geometry = nifti.read(path)
    else:
        from flarekd.imaging import itk

        stored, geometry = itk.read(path)
    _check_grid(path, geometry)
    return stored, geometry


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def _checked_suffix(path: Path) -> str:
    """The ending that says the format, empty for a folder."""
    if path.is_dir():
        return ""
    if not path.exists():
        raise InputError(f"{path}: no such file", "check the path")
    suffix = _suffix(path)
    if not suffix:
        raise InputError(f"{path}: unknown format {''.join(path.suffixes[-2:])!r}", _FORMATS)
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty", "copy or download it again")
    return suffix


def _check_grid(path: Path, geometry: Geometry) -> None:
    mend = "mend the header: without a true spacing nothing can be measured"
    if not all(math.isfinite(length) and length > 0 for length in geometry.spacing_xyz):
        raise InputError(f"{path}: spacing is {geometry.spacing_xyz} mm (x, y, z)", mend)
    if not all(map(math.isfinite, geometry.origin_xyz)):
        raise InputError(f"{path}: origin is {geometry.origin_xyz} mm (x, y, z)", mend)


def _compact(path: Path, stored: NDArray[Any]) -> NDArray[Any]:
    """int16 where every value is an integer that fits, else float32."""
    least, most = _range(path, stored)
    if _INT16.min <= least and most <= _INT16.max and _are_integers(stored):
        return stored.astype(np.int16, copy=False)
    return stored.astype(np.float32, copy=False)


def _are_integers(array: NDArray[Any]) -> bool:
    # slice by slice: no second volume in memory, and a scan of fractions is found out at once
    return array.dtype.kind in "iub" or all(
        bool(np.array_equal(plane, np.rint(plane))) for plane in array
    )


def _fractions(array: NDArray[Any]) -> str:
    """How many voxels are no integer, and the first of them."""
    found = [plane[plane != np.rint(plane)] for plane in array]
    values = np.concatenate(found)
    return f"{values.size:,} of {array.size:,} voxels, such as {values[0]:g}"


def _range(path: Path, array: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest value; InputError where a voxel is no finite number."""
    least, most = float(array.min()), float(array.max())  # NaN comes through both
    if not (math.isfinite(least) and math.isfinite(most)):
        count = int(sum(np.count_nonzero(~np.isfinite(plane)) for plane in array))
        what = f"{path}: {count:,} of {array.size:,} voxels are NaN or infinite"
        raise InputError(what, "replace them (air is -1024 HU) and save again")
    return least, most
