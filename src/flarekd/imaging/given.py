"""A scan that a program holds or names, checked as a file is: the door for calls from Python."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError, UsageError, said
from flarekd.imaging import checks
from flarekd.imaging.files import compact, read_volume
from flarekd.imaging.findings import GREY, admitted
from flarekd.imaging.orientation import to_canonical
from flarekd.imaging.volume import Geometry, Stored, Triple, Volume

_AXES = "give an array (z, y, x), a SimpleITK image, a Volume, or the path of a file"
_SPACING = "give spacing_zyx, three lengths in mm along z, y and x"


def scan_given(image: Any, spacing_zyx: Any = None) -> Volume:
    """The scan that is meant, as `files.read_volume` would give it.

    Args:
        image: Path of a file or DICOM folder; a SimpleITK image; a `Volume`; or an array
            (z, y, x), or what numpy takes for one, whose x grows to the patient's left, y to the
            back and z upward.
        spacing_zyx: Millimetres a voxel, of an array; of nothing else.

    Returns:
        int16 or float32 in canonical orientation; ``notes`` say what is doubtful.

    Raises:
        InputError: If it is no scan, or holds NaN or infinity.
        UsageError: If an array comes without spacing, or anything else with it.
    """
    is_path, is_itk = isinstance(image, str | os.PathLike), _is_itk(image)
    has_own = is_path or is_itk or isinstance(image, Volume)
    if has_own and spacing_zyx is not None:
        what = f"spacing_zyx is {spacing_zyx}, but the scan has a spacing of its own"
        raise UsageError(what, "leave it out, or give the array alone")
    if is_path:
        return read_volume(Path(image))
    if isinstance(image, Volume):
        notes = (*image.notes, *_admit("the Volume", image.array, image.geometry))
        return Volume(compact("the Volume", image.array), image.geometry, notes)
    where = "the image" if is_itk else "the array"
    stored = _of_itk(image, where) if is_itk else _of_array(image, spacing_zyx)
    notes = (*stored.notes, *_admit(where, stored.array, stored.geometry))
    array = to_canonical(compact(where, stored.array), stored.geometry)
    return Volume(array, stored.geometry, notes)


def _is_itk(image: Any) -> bool:
    # who has such an image has imported it; nobody else shall wait for that
    module = sys.modules.get("SimpleITK")
    return module is not None and isinstance(image, module.Image)


def _of_itk(image: Any, where: str) -> Stored:
    from flarekd.imaging import itk

    return itk.from_image(image, where)


def _of_array(image: Any, spacing_zyx: Any) -> Stored:
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a GPU
        what = f"{type(image).__name__} is no array: {said(error)}"
        raise InputError(what, _AXES) from error
    if array.ndim != 3:
        called = type(image).__name__
        raise InputError(f"the scan ({called}) has {array.ndim} axes, not 3", _AXES)
    dz, dy, dx = _spacing(spacing_zyx)
    z, y, x = array.shape
    return Stored(array, Geometry((x, y, z), (dx, dy, dz)))


def _spacing(spacing_zyx: Any) -> Triple:
    if spacing_zyx is None:
        raise UsageError("an array is given without its spacing", _SPACING)
    try:
        lengths = tuple(float(length) for length in spacing_zyx)
    except (TypeError, ValueError):
        lengths = ()
    if len(lengths) != 3 or not all(math.isfinite(mm) and mm > 0 for mm in lengths):
        what = f"spacing_zyx is {spacing_zyx!r}, not three positive numbers"
        raise InputError(what, _SPACING)
    return lengths[0], lengths[1], lengths[2]


def _admit(where: str, array: NDArray[Any], geometry: Geometry) -> tuple[Any, ...]:
    """What is doubtful about a grid and its voxels.

    Raises:
        InputError: If they cannot be used.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where}: voxels are {array.dtype}, not one number each", GREY)
    return admitted(where, checks.of_grid(geometry))
