"""Pickles as data: what is in them is read, never executed.

A pickle is a program that may call anything it can name. Here it can name only what ``admitted.py``
holds. The same reader serves plans and checkpoints, which ``torch.load(weights_only=True)`` would
not, and tensors stay on disk until they are asked for, so that an optimizer's momentum is never
read.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from flarekd.errors import InputError, said
from flarekd.nnunet.admitted import ADMITTED, StoredTensor
from flarekd.nnunet.weigh import LONGEST_PICKLE, check_pickle, check_values

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that torch before 1.6 pickles in front of a checkpoint."""

_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, AttributeError,
    ImportError, IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError,
    MemoryError,
)  # fmt: skip
"""What a torn file, or one made up to do harm, makes of an unpickler."""


@dataclass(frozen=True)
class Checkpoint:
    """A file that ``torch.save`` wrote.

    Attributes:
        path: The file.
        content: What was saved; `StoredTensor` in place of tensors, lists in place of arrays.
        read: Reads the bytes of a storage.
    """

    path: Path
    content: Any
    read: Callable[[StoredTensor], bytes]

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read one tensor.

        Raises:
            InputError: If it does not lie within its storage, or that is torn.
        """
        what = f"{str(self.path)!r}: a tensor of shape {stored.shape}"
        if not _lies_inside(stored):
            raise InputError(f"{what} reaches beyond its numbers", "the file is damaged")
        try:
            data = self.read(stored)
            if len(data) != stored.numel * stored.dtype.itemsize:
                raise ValueError(f"{len(data)} bytes for {stored.numel} numbers")
            flat = torch.frombuffer(bytearray(data), dtype=stored.dtype)
            return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()
        except _BROKEN as error:
            raise InputError(f"{what} cannot be read: {error}", "the file is damaged") from error


def _lies_inside(stored: StoredTensor) -> bool:
    """Whether a tensor is a view of numbers that are there, and of no more than are there."""
    if len(stored.shape) != len(stored.stride):
        return False
    steps = zip(stored.shape, stored.stride, strict=True)
    last = stored.offset + sum((size - 1) * step for size, step in steps)
    # a stride of 0 could make any number of numbers out of one
    count = math.prod(stored.shape)
    lowest = min(0, stored.offset, *stored.shape, *stored.stride)
    return lowest == 0 and last < stored.numel and count <= stored.numel


def read_pickle(path: Path) -> Any:
    """The data of a pickle such as nnU-Net v1's plans; numpy arrays come as lists, scalars as such.

    Raises:
        InputError: If the file cannot be read, or names what plans have no need of.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, path).checked_load()
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a file that ``torch.save`` wrote: a zip, or the older row of pickles.

    Raises:
        InputError: If the file cannot be read, or names what weights have no need of.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        return _read_legacy(path)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{str(path)!r} cannot be read: {said(error)}",
        "give a whole checkpoint or plans file that nnU-Net wrote",
    )


def _read_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        (root,) = (name[: -len("data.pkl")] for name in archive.namelist() if _is_root(name))
        content = _Unpickler(io.BytesIO(_entry(archive, f"{root}data.pkl")), path).checked_load()

    def read(stored: StoredTensor) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return _entry(archive, f"{root}data/{stored.storage}")

    return Checkpoint(path, content, read)


def _is_root(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry as torch writes it: not compressed, so that none is larger than its file."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name!r} is compressed")
    if entry.file_size > (LONGEST_PICKLE if name.endswith(".pkl") else archive.start_dir):
        raise ValueError(f"{name!r} of {entry.file_size:,} bytes is longer than it can be")
    return archive.read(entry)


def _read_legacy(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        if _Unpickler(file, path).checked_load() != LEGACY_MAGIC:
            raise ValueError("it is no file of torch.save")
        for _ in ("protocol", "system"):
            _Unpickler(file, path).checked_load()
        unpickler = _Unpickler(file, path)
        content = unpickler.checked_load()
        places: dict[str, int] = {}
        for key in _Unpickler(file, path).checked_load():
            (count,) = struct.unpack("<q", file.read(8))
            places[key] = file.tell()
            file.seek(count * unpickler.itemsizes[key], io.SEEK_CUR)

    def read(stored: StoredTensor) -> bytes:
        with path.open("rb") as file:
            file.seek(places[stored.storage])
            return file.read(stored.numel * stored.dtype.itemsize)

    return Checkpoint(path, content, read)


class _Unpickler(pickle.Unpickler):
    """Looks names up in `ADMITTED` alone."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._file, self._path = file, path
        self.itemsizes: dict[str, int] = {}

    def checked_load(self) -> Any:
        """Load after a look: a few bytes could claim all memory, or all time."""
        start = self._file.tell()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of a text that it takes nevertheless
            check_pickle(self._file)
            self._file.seek(start)
            value = self.load()
        check_values(value)
        return value

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise InputError(
                f"{str(self._path)!r} names {f'{module}.{name}'!r}, which no weights or plans need",
                "nothing of it was executed; do not open this file with anything else",
            ) from None

    def persistent_load(self, pid: Any) -> tuple[str, torch.dtype, int]:
        kind, dtype, key, _location, numel, *view = pid
        if (kind, type(dtype), type(key)) != ("storage", torch.dtype, str) or any(view):
            raise ValueError("it names something else than the numbers of a tensor")
        self.itemsizes[key] = dtype.itemsize
        return key, dtype, int(numel)
