"""The calls for Python users: a model, a scan, its labels, a file of them.

`segment` goes the way of the command line: the scan is read, then `Student.prepare` and
`Student.segment`; ``infer`` calls the same three apart, to read the next scan meanwhile.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flarekd.errors import InputError, UsageError
from flarekd.imaging import files
from flarekd.imaging.given import scan_given
from flarekd.imaging.orientation import to_stored
from flarekd.imaging.volume import LabelMap, Triple, Volume
from flarekd.inference import predictor
from flarekd.inference.runtimes import Runtime
from flarekd.inference.slabs import Method
from flarekd.protocol import Windows
from flarekd.student.segment import NOT_CT, Student, WindowSettings

PathLike = str | os.PathLike[str]


def load(
    model: PathLike,
    *,
    device: str = "auto",
    runtime: Runtime = "auto",
    windows: Windows | None = None,
    step: float | None = None,
    method: Method | None = None,
) -> Student:
    """Load a model once, for any number of scans: ``flarekd.segment(image, student)``.

    Args:
        model: Student model file, or what ``flarekd export`` made of one.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        runtime: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        windows: Which windows are run: ``full``, ``efficient``, ``body`` or ``paper``; the model
            file says where left out.
        step: Windows apart, as a share of the patch, 0.05 to 1; the model file says.
        method: How labels come to the scan's resolution: ``linear`` (where left out) or
            ``nearest``.

    Returns:
        The student; ``names`` has the names of its labels by id.

    Raises:
        InputError: If the file is no student.
        UsageError: If device or runtime are not there, or a setting is none.
    """
    return _load(model, device, runtime, WindowSettings(windows, step, method))


def segment(
    image: PathLike | Volume | ArrayLike | Any,
    model: PathLike | Student,
    *,
    spacing_zyx: Triple | None = None,
    device: str = "auto",
    runtime: Runtime = "auto",
    windows: Windows | None = None,
    step: float | None = None,
    method: Method | None = None,
) -> LabelMap:
    """Find organs and tumours in one scan: ``flarekd.segment("scan.nii.gz", "model.safetensors")``.

    What was mended in the scan, and that it does not look like CT, is told as a `UserWarning`.

    Args:
        image: A file or DICOM folder; a SimpleITK image, whose spacing, origin and direction are
            taken; a `Volume`; or an array (z, y, x) in HU whose x grows to the patient's left,
            y to the back and z upward.
        model: As `load` takes it, or what that gave.
        spacing_zyx: Millimetres a voxel; needed for an array, and for nothing else.
        device: As for `load`; for a model that is not loaded.
        runtime: As for `load`; for a model that is not loaded.
        windows: As for `load`; of a loaded model too, for this scan.
        step: As `windows`.
        method: As `windows`.

    Returns:
        uint8 ids of the model's labels in ``array`` (z, y, x), along LPS, and the scan's
        ``geometry``. `write_labels` and `to_simpleitk` turn it back onto the scan's own axes.

    Raises:
        InputError: If scan or model cannot be used.
        UsageError: If device or runtime are not there, or an argument is none.
    """
    settings = WindowSettings(windows, step, method)
    if isinstance(model, Student):
        if (device, runtime) != ("auto", "auto"):
            what = "device and runtime cannot be changed once a model is loaded"
            raise UsageError(what, "give them to flarekd.load")
        student = model.told(settings)
    else:
        student = _load(model, device, runtime, settings)
    volume = scan_given(image, spacing_zyx)
    prepared = student.prepare(volume)
    for note in volume.notes:
        warnings.warn(str(note), stacklevel=2)
    if prepared.not_ct:
        warnings.warn(f"the scan {NOT_CT}: {prepared.not_ct}", stacklevel=2)
    del volume  # what the network takes of it is enough
    return student.segment(prepared).labels


def write_labels(path: PathLike, labels: LabelMap, names: Mapping[int, str] | None = None) -> None:
    """Write labels onto their scan's own grid, whole or not at all.

    Args:
        path: ``*.nii.gz``, ``*.nii``, ``*.mha`` or ``*.nrrd``; missing folders are made.
        labels: What `segment` gave.
        names: Id to name, as ``Student.names`` has them; said in the header of a NIfTI.

    Raises:
        InputError: If the ending is another, or the file cannot be written.
        UsageError: If these are no labels.
    """
    files.write_labels(Path(path), _checked(labels), names)


def to_simpleitk(labels: LabelMap) -> Any:
    """Labels as a SimpleITK image, on the grid of the scan that they are of.

    Raises:
        UsageError: If these are no labels.
    """
    from flarekd.imaging import itk

    geometry = _checked(labels).geometry
    return itk.to_image(to_stored(labels.array, geometry), geometry)


def _load(model: object, device: str, runtime: Runtime, settings: WindowSettings) -> Student:
    if not isinstance(model, str | os.PathLike):
        what = f"a model is a file, not a {type(model).__name__}"
        raise UsageError(what, "give its path, or what flarekd.load gave to flarekd.segment")
    path = Path(model)
    where = predictor.device_for(path, device)
    return Student.load(path, device=where, runtime=runtime, settings=settings)


def _checked(labels: object) -> LabelMap:
    if not isinstance(labels, LabelMap):
        what = f"{type(labels).__name__} is no label map"
        raise UsageError(what, "give what flarekd.segment returned")
    if labels.array.dtype != np.uint8:
        raise InputError(f"labels are {labels.array.dtype}, not uint8", "convert the array")
    return labels
