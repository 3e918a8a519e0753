"""One DICOM file of a series: what its header says, and its voxels."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.itk import reason

sitk: Any = SimpleITK  # it carries no types

EXPORT_AGAIN = "export the series again, with all of its slices"

_PREFIX = "1.2.840.10008.1.2"
READABLE = {
    _PREFIX, f"{_PREFIX}.1", f"{_PREFIX}.2", f"{_PREFIX}.1.99", f"{_PREFIX}.5",
    *(f"{_PREFIX}.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)),
}  # fmt: skip
"""Transfer syntaxes that are read: plain, deflated, RLE, JPEG, JPEG-LS and JPEG 2000."""

PLAIN = {_PREFIX, f"{_PREFIX}.1", f"{_PREFIX}.2"}
"""Those of voxels that take as much room in the file as in memory."""

_SYNTAX = b"\x02\x00\x10\x00UI"
"""Tag (0002,0010) and its type, as the file's own header always stores them."""

_VOXELS = b"\xe0\x7f\x10\x00"
"""Tag (7FE0,0010), the voxels, in little endian."""


@dataclass(frozen=True)
class Slice:
    r"""What the header of one file says.

    Attributes:
        path: The file.
        size: Columns, rows.
        frames: Images in the file, 1 but in multi-frame objects.
        spacing: Millimetres between columns, between rows, and what the file says of slices.
        origin: World position of the first voxel's centre, mm.
        direction: 3×3, columns: along a row, along a column, normal.
        placed: Whether it says where in the patient it lies, and how its rows run.
        spaced: Whether it says how far apart its voxels are.
        modality: ``CT`` and the like.
        series: Its series' UID.
        description: Its series' name.
        image_type: ``ORIGINAL\PRIMARY\AXIAL`` and the like.
        colours: Numbers a voxel.
        has_scale: Whether it says how stored values become HU.
        is_lossy: Whether it was once compressed with loss.
        syntax: How its voxels are stored, a UID.
        is_narrow: Whether ITK gives its HU in two bytes or less, none beyond int16.
    """

    path: Path
    size: tuple[int, int]
    frames: int
    spacing: NDArray[np.float64]
    origin: NDArray[np.float64]
    direction: NDArray[np.float64]
    placed: bool
    spaced: bool
    modality: str
    series: str
    description: str
    image_type: str
    colours: int
    has_scale: bool
    is_lossy: bool
    syntax: str
    is_narrow: bool


def read_slice(path: Path) -> Slice:
    """Read the header of a file.

    Raises:
        InputError: If it cannot be read.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        check_syntax(path, transfer_syntax(path))  # older ITK does not come as far as others
        what = f"{path}: DICOM header cannot be read: {reason(error)}"
        raise InputError(what, "copy it again, or take it out of the folder") from error

    def tag(key: str) -> str:
        return str(reader.GetMetaData(key)).strip() if reader.HasMetaDataKey(key) else ""

    size = tuple(int(length) for length in reader.GetSize())
    if len(size) != 3:
        what = f"{path}: is a DICOM of {'×'.join(map(str, size))}"
        raise InputError(what, "take it out of the folder")
    return Slice(
        path=path,
        size=(size[0], size[1]),
        frames=size[2],
        spacing=np.asarray(reader.GetSpacing()),
        origin=np.asarray(reader.GetOrigin()),
        direction=np.asarray(reader.GetDirection()).reshape(3, 3),
        placed=bool(tag("0020|0032") and any(_numbers(tag("0020|0037")))),
        spaced=all(_numbers(tag("0028|0030")) or [0.0]),
        modality=tag("0008|0060"),
        series=tag("0020|000e"),
        description=tag("0008|103e"),
        image_type=tag("0008|0008"),
        colours=int(reader.GetNumberOfComponents()),
        has_scale=any(_numbers(tag("0028|1053"))) and bool(tag("0028|1052")),
        is_lossy=tag("0028|2110") == "01",
        syntax=transfer_syntax(path),
        is_narrow=reader.GetPixelID() in {sitk.sitkInt8, sitk.sitkUInt8, sitk.sitkInt16},
    )


def _numbers(text: str) -> list[float]:
    """The numbers of a tag of several; none where one of them is no number."""
    try:
        return [float(part) for part in text.split("\\")]
    except ValueError:
        return []


def read_plane(path: Path) -> NDArray[Any]:
    """Read one slice, rescaled, (j, i).

    Raises:
        InputError: If its voxels cannot be read.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        # before room is made for them: a header may promise what no file holds
        length = prod(reader.GetSize()) * int(reader.GetMetaData("0028|0100")) // 8
        if transfer_syntax(path) in PLAIN and length > path.stat().st_size:
            raise InputError(f"{path}: voxels are missing: the file is cut off", EXPORT_AGAIN)
        plane: NDArray[Any] = sitk.GetArrayFromImage(reader.Execute())[0]
    except RuntimeError as error:
        raise InputError(f"{path}: voxels cannot be read: {reason(error)}", EXPORT_AGAIN) from error
    if _is_torn(path, plane.size * int(reader.GetMetaData("0028|0100")) // 8):
        raise InputError(f"{path}: voxels are missing: the file is cut off", EXPORT_AGAIN)
    return plane


def _is_torn(path: Path, length: int) -> bool:
    """Whether a file ends before its plain voxels of so many bytes: old SimpleITK fills them up."""
    content = path.read_bytes()
    for kind in (b"OW\0\0", b"OB\0\0", b""):  # explicit, and implicit
        mark = _VOXELS + kind + struct.pack("<I", length + length % 2)
        at = content.find(mark)
        if at >= 0:
            return at + len(mark) + length > len(content)
    return False


def check_syntax(path: Path, syntax: str) -> None:
    """Voxels must be stored in a way that is read.

    Raises:
        InputError: If they are not.
    """
    if syntax not in READABLE:
        what = f"{path}: voxels are compressed in a way that is not read: {syntax}"
        raise InputError(what, "export it uncompressed, or as JPEG 2000 lossless")


def transfer_syntax(path: Path) -> str:
    """How a file says that its voxels are stored, the standard's default where it does not.

    Its own header is always in explicit little endian (part 10 of the standard).
    """
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(_SYNTAX, 132)
    if at < 0:
        return _PREFIX
    (length,) = struct.unpack_from("<H", head.ljust(at + 8, b"\0"), at + 6)
    return head[at + 8 : at + 8 + length].rstrip(b"\0 ").decode("ascii", "replace")
