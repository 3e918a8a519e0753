"""MetaImage and NRRD, through SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.findings import Finding
from flarekd.imaging.orientation import nearest_rotation, of_shear
from flarekd.imaging.volume import Geometry, Grid, Stored

sitk: Any = SimpleITK  # it carries no types
# what matters is raised; ITK's own lines would tear the progress bar
sitk.ProcessObject.SetGlobalWarningDisplay(False)

_MEND = "copy or export it again; a name ending in .mha or .nrrd must hold that format"


def read_grid(path: Path) -> Grid:
    """Read the header only.

    Raises:
        InputError: If the file is no volume of one number a voxel.
    """
    return _grid(path, _reader(path))


def read(path: Path) -> Stored:
    """Read voxels in stored order (k, j, i), and the grid.

    Raises:
        InputError: If the file is torn or no volume of one number a voxel.
    """
    reader = _reader(path)
    grid = _grid(path, reader)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path}: voxels cannot be read: {reason(error)}", _MEND) from error
    array = sitk.GetArrayFromImage(image).reshape(grid.geometry.size_xyz[::-1])
    return Stored(array, *grid)


def write(path: Path, stored: NDArray[Any], geometry: Geometry) -> None:
    """Write a compressed file in the format its name's ending says.

    Args:
        path: Written straight away; ``atomic.replacing`` gives a name to write under.
        stored: (k, j, i).
        geometry: The grid.

    Raises:
        OSError: If the file cannot be written.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored))
    image.SetSpacing(geometry.spacing_xyz)
    image.SetOrigin(geometry.origin_xyz)
    image.SetDirection(geometry.direction)
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(reason(error)) from error


def _grid(path: Path, header: Any) -> Grid:
    """The grid that a reader has read, and what is amiss in it.

    Raises:
        InputError: If it is not a 3D grid of one number a voxel with axes that make sense.
    """
    size = [int(length) for length in header.GetSize()]
    shown = "×".join(map(str, size))
    if len(size) < 3 or max(size[3:], default=1) > 1:
        what = f"{path}: {shown} voxels, {len(size)}D; a scan is 3D"
        raise InputError(what, "give one volume a file, all its slices in it")
    if header.GetNumberOfComponents() > 1:
        what = f"{path}: {header.GetNumberOfComponents()} numbers a voxel, not one"
        raise InputError(what, "give the grey scan, not a colour picture or vector field")
    notes = []
    count = len(size)
    if count > 3:
        notes.append(Finding("mended", f"{shown} voxels", "axes of length 1 are dropped"))
    direction = np.asarray(header.GetDirection()).reshape(count, count)[:3, :3]
    try:
        cosines = nearest_rotation(direction)
    except ValueError as error:
        raise InputError(f"{path}: {error}", "export it again from the original images") from error
    notes += of_shear(direction)
    if np.abs(cosines - direction).max() < 1e-6:
        cosines = direction  # as stored, to the last bit
    i, j, k = size[:3]
    dx, dy, dz = (float(length) for length in header.GetSpacing()[:3])
    x, y, z = (float(place) for place in header.GetOrigin()[:3])
    directions = tuple(map(float, cosines.ravel()))
    return Grid(Geometry((i, j, k), (dx, dy, dz), (x, y, z), directions), tuple(notes))


def reason(error: RuntimeError) -> str:
    """The last line of ITK's message that says something, without its source file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else "no reason given"


def _reader(path: Path) -> Any:
    _check_meta_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: header cannot be read: {reason(error)}", _MEND) from error
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if "complex" in pixel or "label" in pixel:
        raise InputError(f"{path}: voxels are {pixel}, not one number each", "give the grey scan")
    return reader


_BYTES = {
    "CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
    "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip


def _check_meta_header(path: Path) -> None:
    """Find garbage and torn files before MetaIO does, which would shout on the screen."""
    if path.suffix.lower() not in {".mha", ".mhd"}:
        return
    fields, length = _meta_fields(path)
    if not {"NDims", "DimSize", "ElementType", "ElementDataFile"} <= fields.keys():
        raise InputError(f"{path}: is no MetaImage file", _MEND)
    source = fields["ElementDataFile"]
    if source.startswith("LIST") or "%" in source:
        return  # one file a slice: left to MetaIO
    voxels, before = (path, length) if source.upper() == "LOCAL" else (path.with_name(source), 0)
    if not voxels.is_file():
        what = f"{path}: its voxels should lie in {source!r}, which is not there"
        raise InputError(what, "put both files of the pair into one folder")
    try:
        expected = _meta_bytes(fields)
    except ValueError as error:
        raise InputError(f"{path}: is no MetaImage file: {error}", _MEND) from error
    present = voxels.stat().st_size - before
    if present < expected:
        raise InputError(f"{path}: the file is torn: {present:,} of {expected:,} bytes", _MEND)


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """The ``key = value`` lines of a MetaImage header, and its length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while len(fields) < 200 and (line := file.readline(4096)):
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        return fields, file.tell()


def _meta_bytes(fields: dict[str, str]) -> int:
    """The bytes of voxels a MetaImage header promises, 0 where it does not say."""
    if fields.get("CompressedData", "").lower() == "true":
        return int(fields.get("CompressedDataSize", "0"))
    width = _BYTES.get(fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY"), 0)
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    return math.prod(int(length) for length in fields["DimSize"].split()) * width * channels
