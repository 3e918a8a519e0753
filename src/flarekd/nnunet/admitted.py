"""The names that a pickle of weights or plans may use, and what stands for each here.

Never the real function of torch or numpy: those trust their arguments (numpy can be told to read
bytes as pointers). What stands here makes numbers, lists, dicts and descriptions of tensors.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
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
