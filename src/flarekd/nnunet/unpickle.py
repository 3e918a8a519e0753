"""Pickles as data: what is in them is read, never executed.

A pickle is a program that may call anything it can name. Here it can name only what `ADMITTED`
holds, and every name there stands for a small function of this file, never for the real one of
torch or numpy: those trust their arguments (numpy can be told to read bytes as pointers). The same
reader serves plans and checkpoints, which ``torch.load(weights_only=True)`` would not, and tensors
stay on disk until they are asked for, so that an optimizer's momentum is never read.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from flarekd.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The number that torch before 1.6 pickles in front of a checkpoint."""

_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, AttributeError,
    ImportError, IndexError, KeyError, TypeError, ValueError, OverflowError, RuntimeError,
    MemoryError,
)  # fmt: skip
"""What a torn file, or one made up to do harm, makes of an unpickler."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that lies in a checkpoint, not yet read.

    Attributes:
        storage: Name of the numbers it is a view of.
        dtype: Their type.
        numel: How many they are.
        offset: Its first number.
        shape: Its shape.
        stride: Numbers from one index to the next, an axis.
    """

    storage: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A file that ``torch.save`` wrote.

    Attributes:
        content: What was saved; `StoredTensor` in place of tensors, lists in place of arrays.
        read: Reads the bytes of a storage.
    """

    content: Any
    read: Callable[[StoredTensor], bytes]

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read one tensor.

        Raises:
            InputError: If it does not lie within its storage, or that is torn.
        """
        last = stored.offset + sum(
            (size - 1) * step for size, step in zip(stored.shape, stored.stride, strict=True)
        )
        inside = min(0, stored.offset, *stored.shape, *stored.stride) == 0 and last < stored.numel
        # no more numbers than are stored: a stride of 0 could make any number of one
        if not inside or math.prod(stored.shape) > stored.numel:
            raise InputError(f"a tensor of shape {stored.shape} reaches beyond its numbers")
        try:
            flat = torch.frombuffer(bytearray(self.read(stored)), dtype=stored.dtype)
            return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()
        except _BROKEN as error:
            raise InputError(f"a tensor of shape {stored.shape} cannot be read: {error}") from error


def read_pickle(path: Path) -> Any:
    """The data of a pickle such as nnU-Net v1's plans; numpy arrays come as lists, scalars as such.

    Raises:
        InputError: If the file cannot be read, or names what plans have no need of.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, path).load()
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
        f"{str(path)!r} cannot be read: {str(error) or type(error).__name__}",
        "give a whole checkpoint or plans file that nnU-Net wrote",
    )


def _read_zip(path: Path) -> Checkpoint:
    with zipfile.ZipFile(path) as archive:
        (root,) = (name[: -len("data.pkl")] for name in archive.namelist() if _is_root(name))
        content = _Unpickler(io.BytesIO(_entry(archive, f"{root}data.pkl")), path).load()

    def read(stored: StoredTensor) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return _entry(archive, f"{root}data/{stored.storage}")

    return Checkpoint(content, read)


def _is_root(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry as torch writes it: not compressed, so that none is larger than its file."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name!r} is compressed")
    return archive.read(entry)


def _read_legacy(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        if _Unpickler(file, path).load() != LEGACY_MAGIC:
            raise ValueError("it is no file of torch.save")
        for _ in ("protocol", "system"):
            _Unpickler(file, path).load()
        unpickler = _Unpickler(file, path)
        content = unpickler.load()
        places: dict[str, int] = {}
        for key in _Unpickler(file, path).load():
            (count,) = struct.unpack("<q", file.read(8))
            places[key] = file.tell()
            file.seek(count * unpickler.itemsizes[key], io.SEEK_CUR)

    def read(stored: StoredTensor) -> bytes:
        with path.open("rb") as file:
            file.seek(places[stored.storage])
            return file.read(stored.numel * stored.dtype.itemsize)

    return Checkpoint(content, read)


class _Unpickler(pickle.Unpickler):
    """Looks names up in `ADMITTED` alone."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path
        self.itemsizes: dict[str, int] = {}

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
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(view):
            raise ValueError(f"{pid!r} is no storage")
        self.itemsizes[str(key)] = dtype.itemsize
        return str(key), dtype, int(numel)


def _ordered_dict(items: Sequence[tuple[Any, Any]] = ()) -> _Dict:
    return _Dict(items)


class _Dict(OrderedDict[Any, Any]):
    """An OrderedDict whose pickled attributes (torch's version notes) are left out."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(
    storage: tuple[str, torch.dtype, int], offset: int, shape: Any, stride: Any, *_rest: Any
) -> StoredTensor:
    key, dtype, numel = storage
    return StoredTensor(
        key, dtype, numel, int(offset), tuple(map(int, shape)), tuple(map(int, stride))
    )


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding!r}")
    return text.encode("latin1")


class _Dtype:
    """Stands for numpy.dtype: numbers and truth values, no objects, no records."""

    def __init__(self, name: str, *_flags: bool) -> None:
        if name not in {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}:
            raise ValueError(f"an array of {name!r}")
        self.name = name
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def read(self, data: bytes) -> np.ndarray[Any, Any]:
        """The numbers of `data`."""
        return np.frombuffer(data, np.dtype(self.order + self.name))


class _Array(list[Any]):
    """Stands for numpy.ndarray: nested lists."""

    def __setstate__(self, state: tuple[Any, Any, _Dtype, bool, bytes]) -> None:
        _version, shape, dtype, is_fortran, data = state
        flat = dtype.read(data)
        axes = tuple(map(int, shape))
        self[:] = (flat.reshape(axes[::-1]).T if is_fortran else flat.reshape(axes)).tolist()


def _array(_type: Any, _shape: Any, _typecode: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> float:
    (number,) = dtype.read(data).tolist()
    return float(number) if dtype.name[0] == "f" else int(number)


def _device(name: str, *_index: int) -> str:
    return name


ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "_codecs.encode": _latin1,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": "numpy.ndarray",
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.device": _device,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{
        f"torch.{name}Storage": dtype
        for name, dtype in {
            "Float": torch.float32, "Double": torch.float64, "Half": torch.float16,
            "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32,
            "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool,
        }.items()
    },
}  # fmt: skip
"""Every name that weights and plans need, and what stands for it here."""
