"""MetaImage and NRRD, through SimpleITK."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.findings import GREY, Finding
from flarekd.imaging.itk_header import MEND, Packed, check_meta, check_nrrd
from flarekd.imaging.orientation import nearest_rotation, of_shear
from flarekd.imaging.volume import Geometry, Grid, Stored

sitk: Any = SimpleITK  # it carries no types
# what matters is raised; ITK's own lines would tear the progress bar
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_grid(path: Path) -> Grid:
    """Read the header only.

    Raises:
        InputError: If the file is no volume of one number a voxel.
    """
    reader = _reader(path)[0]
    return _grid(path, reader, reader.GetNumberOfComponents())


def voxel_bytes(path: Path) -> int:
    """Bytes a voxel as stored, from the header.

    Raises:
        InputError: As `read_grid`.
    """
    name = sitk.GetPixelIDValueAsString(_reader(path)[0].GetPixelID())
    bits = re.match(r"\d+", name)  # such as "16-bit signed integer"
    return int(bits[0]) // 8 if bits else 8


def read(path: Path) -> Stored:
    """Read voxels in stored order (k, j, i), and the grid.

    Raises:
        InputError: If the file is torn or no volume of one number a voxel.
    """
    reader, packed = _reader(path)
    grid = _grid(path, reader, reader.GetNumberOfComponents())
    if packed:
        return Stored(packed.unpack(path, grid.geometry.size_xyz[::-1]), *grid)
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path}: voxels cannot be read: {reason(error)}", MEND) from error
    array = sitk.GetArrayFromImage(image).reshape(grid.geometry.size_xyz[::-1])
    return Stored(array, *grid)


def from_image(image: Any, where: str) -> Stored:
    """Take a SimpleITK image as `read` takes a file.

    Args:
        image: Is copied.
        where: What it is called in a message.

    Raises:
        InputError: If it is no volume of one number a voxel.
    """
    _check_pixel(where, image)
    grid = _grid(where, image, image.GetNumberOfComponentsPerPixel())
    array = sitk.GetArrayFromImage(image).reshape(grid.geometry.size_xyz[::-1])
    return Stored(array, *grid)


def to_image(stored: NDArray[Any], geometry: Geometry) -> Any:
    """A SimpleITK image of voxels (k, j, i) on their grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored))
    image.SetSpacing(geometry.spacing_xyz)
    image.SetOrigin(geometry.origin_xyz)
    image.SetDirection(geometry.direction)
    return image


def write(path: Path, stored: NDArray[Any], geometry: Geometry) -> None:
    """Write a compressed file in the format its name's ending says.

    Args:
        path: Written straight away; ``atomic.replacing`` gives a name to write under.
        stored: (k, j, i).
        geometry: The grid.

    Raises:
        OSError: If the file cannot be written.
    """
    image = to_image(stored, geometry)
    try:
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    except RuntimeError as error:
        raise OSError(reason(error)) from error
    if not _holds(path, stored):
        message = "it does not hold what was written"
        raise OSError(message)


def _holds(path: Path, stored: NDArray[Any]) -> bool:
    """Whether a file holds these voxels: where a disk is full to the brim ITK says nothing."""
    try:
        found = read(path).array
    except InputError:
        return False
    return np.array_equal(found, stored, equal_nan=stored.dtype.kind == "f")


def _grid(where: Path | str, header: Any, components: int) -> Grid:
    """The grid of a reader or an image, and what is amiss in it.

    Raises:
        InputError: If it is not a 3D grid of one number a voxel with axes that make sense.
    """
    size = [int(length) for length in header.GetSize()]
    shown = "×".join(map(str, size))
    if len(size) < 3 or max(size[3:], default=1) > 1:
        what = f"{where}: {shown} voxels, {len(size)}D; a scan is 3D"
        raise InputError(what, "give one volume a file, all its slices in it")
    if components > 1:
        what = f"{where}: {components} numbers a voxel, not one"
        raise InputError(what, GREY)
    notes = []
    count = len(size)
    if count > 3:
        notes.append(Finding("mended", f"{shown} voxels", "axes of length 1 are dropped"))
    direction = np.asarray(header.GetDirection()).reshape(count, count)[:3, :3]
    try:
        cosines = nearest_rotation(direction)
    except ValueError as error:
        raise InputError(f"{where}: {error}", "export it again from the original images") from error
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


def _reader(path: Path) -> tuple[Any, Packed | None]:
    """A reader that has read the header, and the voxels where they are not its to read."""
    is_nrrd = path.suffix.lower() == ".nrrd"
    packed = check_nrrd(path) if is_nrrd else check_meta(path)
    reader = sitk.ImageFileReader()
    # by the ending alone: ITK would try twenty more formats on what it finds
    reader.SetImageIO("NrrdImageIO" if is_nrrd else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path}: header cannot be read: {reason(error)}", MEND) from error
    _check_pixel(path, reader)
    return reader, packed


def _check_pixel(where: Path | str, header: Any) -> None:
    pixel = sitk.GetPixelIDValueAsString(header.GetPixelID())
    if "complex" in pixel or "label" in pixel:
        raise InputError(f"{where}: voxels are {pixel}, not one number each", GREY)
