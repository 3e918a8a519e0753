"""The NIfTI header: bytes to what they say of the voxels, and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.findings import GREY, Finding
from flarekd.imaging.nifti_grid import LPS, grid, quaternion
from flarekd.imaging.volume import Geometry

TORN = "copy or download it again: what is missing cannot be mended"
LONGEST = 540
"""Bytes to give to ``parse``: a NIfTI-2 header is the longest."""

_FIELDS: dict[int, tuple[tuple[str, str, int], ...]] = {
    348: (
        ("sizeof_hdr", "i4", 0), ("dim", "8i2", 40), ("datatype", "i2", 70), ("bitpix", "i2", 72),
        ("pixdim", "8f4", 76), ("vox_offset", "f4", 108), ("scl_slope", "f4", 112),
        ("scl_inter", "f4", 116), ("xyzt_units", "u1", 123), ("qform_code", "i2", 252),
        ("sform_code", "i2", 254), ("quatern", "3f4", 256), ("qoffset", "3f4", 268),
        ("srow", "(3,4)f4", 280), ("magic", "S4", 344),
    ),
    540: (
        ("sizeof_hdr", "i4", 0), ("magic", "S4", 4), ("datatype", "i2", 12), ("bitpix", "i2", 14),
        ("dim", "8i8", 16), ("pixdim", "8f8", 104), ("vox_offset", "i8", 168),
        ("scl_slope", "f8", 176), ("scl_inter", "f8", 184), ("qform_code", "i4", 344),
        ("sform_code", "i4", 348), ("quatern", "3f8", 352), ("qoffset", "3f8", 376),
        ("srow", "(3,4)f8", 400), ("xyzt_units", "i4", 500),
    ),
}  # fmt: skip
"""Fields of a header that matter here: names, types and byte offsets, by the header's size."""

_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8",
    256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says about its voxels.

    Attributes:
        geometry: The grid, world LPS.
        dtype: As stored, byte order included.
        offset: Bytes before the first voxel.
        slope: Factor from stored to true values.
        intercept: What is added then.
        notes: What is amiss and yet can be read.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    notes: tuple[Finding, ...] = ()


def parse(path: Path, head: bytes) -> Header:
    """Understand the first bytes of a file.

    Args:
        path: For messages.
        head: The first ``LONGEST`` bytes, fewer where the file is shorter.

    Raises:
        InputError: If they are no header of a NIfTI volume of one number a voxel.
    """
    fields = _fields(path, head)
    shape = [int(length) for length in fields["dim"][1 : 1 + max(0, min(7, int(fields["dim"][0])))]]
    if len(shape) < 3 or min(shape) < 1:
        what = f"{path}: {'×'.join(map(str, shape)) or 'no'} voxels, {len(shape)}D; a scan is 3D"
        raise InputError(what, "give a volume, all slices in one file")
    if max(shape[3:], default=1) > 1:
        what = f"{path}: holds {int(np.prod(shape[3:]))} volumes ({'×'.join(map(str, shape))})"
        raise InputError(what, "split it and give one volume a file")
    code = int(fields["datatype"])
    if code not in _DTYPES:
        kind = {128: "RGB", 2304: "RGBA", 32: "complex", 1792: "complex"}.get(code, f"type {code}")
        raise InputError(f"{path}: voxels are {kind}, not one number each", GREY)
    slope, intercept, notes = _scale(fields)
    if len(shape) > 3:
        what = f"{'×'.join(map(str, shape))} voxels"
        notes.append(Finding("mended", what, "axes of length 1 are dropped"))
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is told as such
            geometry, more = grid(fields, shape)
    except ValueError as error:
        raise InputError(f"{path}: {error}", "export it again from the original images") from error
    swapped = not fields.dtype["sizeof_hdr"].isnative
    dtype = np.dtype(_DTYPES[code]).newbyteorder("S" if swapped else "=")
    offset = float(fields["vox_offset"])
    if not offset < 2**40:  # NaN too
        raise InputError(f"{path}: says that its voxels begin at byte {offset:g}", TORN)
    # old writers left it 0; voxels never begin within the header and its four bytes of extension
    first = int(fields["sizeof_hdr"]) + 4
    start = max(int(max(offset, 0.0)), first)
    return Header(geometry, dtype, start, slope, intercept, (*notes, *more))


def _scale(fields: np.void) -> tuple[float, float, list[Finding]]:
    """Slope and intercept, 1 and 0 where the header's mean nothing."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if np.isfinite([slope, intercept]).all() and slope != 0:
        return slope, intercept, []
    if slope == 0 and intercept == 0:
        return 1.0, 0.0, []  # the standard's way to say: not scaled
    what = f"scale factor {slope:g}, offset {intercept:g}"
    mend = "voxels are taken as stored, as the standard says"
    if intercept == 0 or np.isnan(intercept):
        return 1.0, 0.0, [Finding("mended", what, mend)]
    return 1.0, 0.0, [Finding("doubtful", what, f"{mend}; compare")]


def _fields(path: Path, head: bytes) -> np.void:
    if not head:
        raise InputError(f"{path}: the file is empty", TORN)
    orders: tuple[Literal["<", ">"], ...] = ("<", ">")
    for order in orders:
        length = int(np.frombuffer(head[:4].ljust(4, b"\0"), order + "i4")[0])
        if length in _FIELDS and len(head) >= length:
            fields: np.void = np.frombuffer(head[:length], _layout(length, order))[0]
            if fields["magic"] in (b"n+1", b"n+2"):
                return fields
            if fields["magic"] in (b"ni1", b"ni2"):
                what = f"{path}: is the header of a pair, its voxels lie in another file"
                raise InputError(what, "convert the pair to one .nii.gz")
    raise InputError(f"{path}: is no NIfTI file", "check that the name's ending tells the format")


def _layout(length: int, order: Literal["<", ">"]) -> np.dtype[Any]:
    names, formats, offsets = zip(*_FIELDS[length], strict=True)
    layout: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": length}
    native: np.dtype[Any] = np.dtype(layout)
    return native.newbyteorder(order)


def build(stored: NDArray[Any], geometry: Geometry, extension: bytes = b"") -> bytes:
    """The bytes before the voxels of a NIfTI-1 file: 352, and an extension where there is one.

    Args:
        stored: (k, j, i), little-endian once written.
        geometry: The grid, said as sform and qform both.
        extension: Whole, with its length and code; a multiple of 16 bytes.

    Raises:
        ValueError: If the dtype or the size is beyond NIfTI-1.
    """
    if stored.dtype not in _CODES or max(stored.shape) > np.iinfo(np.int16).max:
        message = f"NIfTI-1 does not hold {stored.dtype} voxels of shape {stored.shape} (k, j, i)"
        raise ValueError(message)
    header = np.zeros(1, _layout(348, "<"))
    fields = header[0]
    rotation = LPS @ np.asarray(geometry.direction).reshape(3, 3)
    origin = LPS @ np.asarray(geometry.origin_xyz)
    qfac = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    fields["sizeof_hdr"] = 348
    fields["dim"] = [3, *geometry.size_xyz, 1, 1, 1, 1]
    fields["datatype"] = _CODES[stored.dtype]
    fields["bitpix"] = stored.dtype.itemsize * 8
    fields["pixdim"] = [qfac, *geometry.spacing_xyz, 0, 0, 0, 0]
    fields["vox_offset"] = 352 + len(extension)
    fields["scl_slope"] = 1
    fields["xyzt_units"] = 2  # millimetres
    fields["qform_code"] = fields["sform_code"] = 1  # both: programs differ in which they read
    fields["quatern"] = quaternion(rotation * [1.0, 1.0, qfac])
    fields["qoffset"] = origin
    fields["srow"][:, :3] = rotation * geometry.spacing_xyz
    fields["srow"][:, 3] = origin
    fields["magic"] = b"n+1"
    return header.tobytes() + bytes([bool(extension), 0, 0, 0]) + extension
