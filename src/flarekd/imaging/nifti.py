"""NIfTI-1 and NIfTI-2, single file, read and written here rather than through SimpleITK.

ITK fills the rest of a torn file with zeros and says nothing, and it refuses headers whose axes
rounding left a hair from perpendicular.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import igzip, igzip_lib
from numpy.typing import NDArray

from flarekd.errors import InputError, mend_of, said
from flarekd.imaging.nifti_header import LONGEST, TORN, Header, build, parse
from flarekd.imaging.volume import Geometry, Stored

_DAMAGED: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, igzip_lib.IsalError)  # type: ignore[assignment]  # its stub calls the class an instance
_MAGIC = b"\x1f\x8b"
"""How a gzip file begins."""

_CHUNK = 1 << 20
"""Bytes inflated at once; what is asked for is held a second time while it is."""


def read_header(path: Path) -> Header:
    """Read the header only.

    Raises:
        InputError: If the file is no NIfTI volume of one number a voxel.
    """
    with _opened(path) as file:
        return parse(path, file.read(LONGEST))


def read(path: Path) -> Stored:
    """Read voxels in stored order (k, j, i), scaled as the header says, and the grid.

    Returns:
        The array in native byte order, float32 where the header scales.

    Raises:
        InputError: If the file is torn or no NIfTI volume of one number a voxel.
    """
    with _opened(path) as file:
        header = parse(path, file.read(LONGEST))
        file.seek(header.offset)
        stored = _room(path, header)
        buffer = stored.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(buffer):
            count = file.readinto(buffer[done : done + _CHUNK])  # type: ignore[attr-defined]  # IO[bytes] lacks it
            if not count:
                what = f"{path}: the file is torn: {done:,} of {len(buffer):,} bytes of voxels"
                raise InputError(what, TORN)
            done += count
        while file.read(1 << 16):  # to the end, where gzip checks its sum
            pass
    return Stored(_scaled(stored, header), header.geometry, header.notes)


def ends_well(path: Path) -> bool:
    """Whether the end of a file is what its header asks for: a look that costs next to nothing.

    Of a gzip file the last bytes say how much was packed. Where that is not what the header asks
    for, the file is torn, or packed in several parts, or holds more than its voxels.

    Raises:
        InputError: As ``read_header``.
    """
    header = read_header(path)
    content = header.offset + math.prod(header.geometry.size_xyz) * header.dtype.itemsize
    with path.open("rb") as raw:
        packed = raw.read(2) == _MAGIC
        size = raw.seek(0, os.SEEK_END)
        if not packed:
            return size >= content
        raw.seek(-4, os.SEEK_END)
        return int.from_bytes(raw.read(4), "little") == content % (1 << 32)


def write(path: Path, stored: NDArray[Any], geometry: Geometry, extension: bytes = b"") -> None:
    """Write NIfTI-1, gzip-compressed where the name ends so; the same bytes for the same content.

    Args:
        path: Written straight away; ``atomic.replacing`` gives a name to write under.
        stored: (k, j, i), a dtype NIfTI knows.
        geometry: The grid to say in the header, as sform and qform both.
        extension: As ``nifti_header.build`` takes it.

    Raises:
        ValueError: If the dtype or the size is beyond NIfTI-1.
    """
    header = build(stored, geometry, extension)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            with _gzip("wb", file) as packed:
                _write_slices(packed, header, stored)
        else:
            _write_slices(file, header, stored)


def _room(path: Path, header: Header) -> NDArray[Any]:
    shape = header.geometry.size_xyz[::-1]
    try:
        return np.empty(shape, header.dtype)
    except (MemoryError, ValueError) as error:
        what = f"{path}: {shape} voxels (k, j, i) of {header.dtype} do not fit into memory"
        raise InputError(what, "the header may be damaged; else cut the scan") from error


def _write_slices(file: IO[bytes] | gzip.GzipFile, header: bytes, stored: NDArray[Any]) -> None:
    file.write(header)
    for plane in stored:
        file.write(np.ascontiguousarray(plane).data)


def _gzip(mode: str, file: IO[bytes]) -> gzip.GzipFile:
    """A file through ISA-L: no name and no time in its header, so same content, same bytes."""
    # level 1: the slower ones make a CT 3 % smaller and label maps no smaller
    return igzip.IGzipFile("", mode, 1, file, mtime=0)  # type: ignore[no-untyped-call]  # half typed


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, gzip or not whatever its name says, and turn what goes wrong into InputError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _MAGIC
            raw.seek(0)
            if packed:
                with _gzip("rb", raw) as file:
                    yield file  # type: ignore[misc]  # a GzipFile is an IO[bytes] in all we use
            else:
                yield raw
    except _DAMAGED as error:
        raise InputError(f"{path}: the file is torn: {error}", TORN) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {said(error)}", mend_of(error)) from error


def _scaled(stored: NDArray[Any], header: Header) -> NDArray[Any]:
    array = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return array
    scaled = array.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is told as such later
        scaled *= np.float32(header.slope)
        scaled += np.float32(header.intercept)
    return scaled
