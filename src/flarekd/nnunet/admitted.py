"""The names that a pickle of weights or plans may use, and what stands for each here.

Never the real function of torch or numpy: those trust their arguments (numpy can be told to read
bytes as pointers). What stands here makes numbers, lists, dicts and descriptions of tensors.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


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

    def __setstate__(self, _state: Any) -> None:
        raise ValueError("a tensor is what it was made as")


class _Call:
    """A function that a pickle may call and not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def __setstate__(self, _state: Any) -> None:
        raise ValueError("a function is not to be changed")


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
    if not isinstance(dtype, torch.dtype):
        raise TypeError("a tensor of no storage")
    return StoredTensor(key, dtype, numel, _size(offset), _sizes(shape), _sizes(stride))


def _sizes(numbers: Any) -> tuple[int, ...]:
    return tuple(map(_size, numbers))


def _size(number: Any) -> int:
    if type(number) is not int or abs(number) > sys.maxsize:
        raise ValueError("a size that no tensor has")
    return number


def _shown(value: Any) -> str:
    """A value for a message; what is no text may take forever to show."""
    return repr(value[:50]) if isinstance(value, str) else type(value).__name__


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in {_shown(encoding)}")
    return text.encode("latin1")


_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _Dtype:
    """Stands for numpy.dtype: numbers and truth values, no objects, no records."""

    def __init__(self, name: Any, *_flags: bool) -> None:
        if not isinstance(name, str) or name not in _NUMBERS:
            raise ValueError(f"an array of {_shown(name)}")
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
        if not flat.size:
            axes = (0,)  # of no numbers there could be any number of rows
        self[:] = (flat.reshape(axes[::-1]).T if is_fortran else flat.reshape(axes)).tolist()


def _array(_type: Any, _shape: Any, _typecode: Any) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> float:
    (number,) = dtype.read(data).tolist()
    return float(number) if dtype.name[0] == "f" else int(number)


def _device(name: str, *_index: int) -> str:
    return name


ADMITTED: dict[str, Any] = {
    "collections.OrderedDict": _Call(_ordered_dict),
    "_codecs.encode": _Call(_latin1),
    "numpy.dtype": _Call(_Dtype),
    "numpy.ndarray": "numpy.ndarray",
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch.device": _Call(_device),
    **{f"numpy.{core}.multiarray._reconstruct": _Call(_array) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _Call(_scalar) for core in ("core", "_core")},
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
