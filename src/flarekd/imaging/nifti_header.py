"""The NIfTI header: bytes to a grid in ITK's world and back.

Where sform and qform disagree we choose as ITK does, so that the grid is the one every ITK program
sees; what ITK refuses because rounding left the axes a hair from perpendicular is straightened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError
from flarekd.imaging.orientation import nearest_rotation
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
_MILLIMETRES = {1: 1000.0, 3: 0.001}
_LPS = np.diag([-1.0, -1.0, 1.0])
"""NIfTI's world is RAS, ITK's LPS."""


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says about its voxels.

    Attributes:
        geometry: The grid, world LPS.
        dtype: As stored, byte order included.
        offset: Bytes before the first voxel.
        slope: Factor from stored to true values.
        intercept: What is added then.
    """

    geometry: Geometry
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float


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
        raise InputError(f"{path}: voxels are {kind}, not one number each", "give the grey scan")
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        slope, intercept = 1.0, 0.0  # as the standard says: not scaled
    try:
        geometry = _geometry(fields, shape)
    except ValueError as error:
        raise InputError(f"{path}: {error}", "export it again from the original images") from error
    swapped = not fields.dtype["sizeof_hdr"].isnative
    dtype = np.dtype(_DTYPES[code]).newbyteorder("S" if swapped else "=")
    offset = float(fields["vox_offset"])
    if not offset < 2**40:  # NaN too
        raise InputError(f"{path}: says that its voxels begin at byte {offset:g}", TORN)
    # old writers left it 0; voxels never begin within the header and its four bytes of extension
    first = int(fields["sizeof_hdr"]) + 4
    return Header(geometry, dtype, max(int(max(offset, 0.0)), first), slope, intercept)


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


def _geometry(fields: np.void, shape: list[int]) -> Geometry:
    """The grid in LPS; ValueError where its axes make no sense."""
    unit = _MILLIMETRES.get(int(fields["xyzt_units"]) & 7, 1.0)
    spacing = fields["pixdim"][1:4].astype(np.float64)
    srow = fields["srow"].astype(np.float64)
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    if not has_sform and not has_qform:
        direction, origin = np.eye(3), np.zeros(3)
    elif has_sform and (
        not has_qform or (int(fields["sform_code"]) == 1 and _is_orthogonal(srow[:, :3]))
    ):
        columns = srow[:, :3] / np.maximum(np.linalg.norm(srow[:, :3], axis=0), 1e-30)
        direction, origin = _LPS @ nearest_rotation(columns), _LPS @ srow[:, 3]
    else:
        rotation = _rotation(fields["quatern"].astype(np.float64))
        rotation[:, 2] *= -1.0 if fields["pixdim"][0] < 0 else 1.0
        direction = _LPS @ nearest_rotation(rotation)
        origin = _LPS @ fields["qoffset"].astype(np.float64)
    i, j, k = shape[:3]
    x_mm, y_mm, z_mm = (float(length) for length in spacing * unit)
    x, y, z = (float(place) for place in origin * unit)
    # + 0.0 turns -0.0 into 0.0
    cosines = tuple(float(cosine) + 0.0 for cosine in direction.ravel())
    return Geometry((i, j, k), (x_mm, y_mm, z_mm), (x + 0.0, y + 0.0, z + 0.0), cosines)


def _is_orthogonal(columns: NDArray[np.float64]) -> bool:
    norms = np.linalg.norm(columns, axis=0)
    if not np.isfinite(norms).all() or norms.min() <= 0:
        return False
    unit = columns / norms
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() < 1e-3)


def _rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    b, c, d = quaternion
    square = 1.0 - b * b - c * c - d * d
    if square < 1e-7:  # a half turn: rounding must not make it shorter
        b, c, d = quaternion / np.linalg.norm(quaternion)
        square = 0.0
    a = float(np.sqrt(square))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
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
    rotation = _LPS @ np.asarray(geometry.direction).reshape(3, 3)
    origin = _LPS @ np.asarray(geometry.origin_xyz)
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
    fields["quatern"] = _quaternion(rotation * [1.0, 1.0, qfac])
    fields["qoffset"] = origin
    fields["srow"][:, :3] = rotation * geometry.spacing_xyz
    fields["srow"][:, 3] = origin
    fields["magic"] = b"n+1"
    return header.tobytes() + bytes([bool(extension), 0, 0, 0]) + extension
