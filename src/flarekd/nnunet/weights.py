"""An nnU-Net state dict as one of flarekd's networks.

Channels, kernels, strides and depths are read off the tensors' shapes, and what results must fit
the network built from them name by name and shape by shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from flarekd.card_parts import NETWORKS, check
from flarekd.layers import Unfilled
from flarekd.nnunet.names import (
    Names,
    published_names,
    refused,
    teacher_name,
    v1_names,
    v2_names,
)
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet


class Shaped(Protocol):
    """A tensor, read or not."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


@dataclass(frozen=True)
class Converted:
    """An nnU-Net network as one of flarekd's.

    Attributes:
        role: ``student`` for 3D, ``teacher`` for 2D.
        network: Arguments of StudentUNet or TeacherUNet.
        names: Each of its tensors' names, and nnU-Net's for it.
        dropped: nnU-Net's names of what never runs.
    """

    role: Literal["teacher", "student"]
    network: dict[str, Any]
    names: Names
    dropped: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """The network, without memory for its weights."""
        with torch.device("meta"), Unfilled():
            if self.role == "student":
                return StudentUNet(**self.network)
            return TeacherUNet(**self.network)


def convert(found: Mapping[str, Shaped]) -> Converted:
    """Recognise a network by its tensors' names and shapes.

    Args:
        found: nnU-Net's state dict.

    Raises:
        InputError: If it is no plain U-Net, or one that flarekd cannot run as it is.
    """
    if next(iter(found), "").startswith(("encoder.", "decoder.")):
        converted = _plain(found, v2_names(found))
    elif any(name.startswith("nonlocal4_2.") for name in found):
        converted = _published_teacher(found)
    else:
        converted = _plain(found, v1_names(found))
    _check_fit(found, converted)
    return converted


class _Shapes:
    """Shapes of tensors by flarekd's names."""

    def __init__(self, found: Mapping[str, Shaped], names: Names) -> None:
        self._found, self._names = found, names

    def row(self, pattern: str) -> list[tuple[int, ...]]:
        """Those of ``pattern`` with 0, 1, 2 … in its place, as far as they go."""
        result: list[tuple[int, ...]] = []
        while (name := pattern.format(len(result))) in self._names:
            result.append(tuple(self._found[self._names[name]].shape))
        return result


def _plain(found: Mapping[str, Shaped], names: Names) -> Converted:
    """A plain U-Net of any shape, from names such as StudentUNet's."""
    shapes = _Shapes(found, names)
    encoder, decoder = shapes.row("encoder.{}.0.0.weight"), shapes.row("decoder.{}.0.0.weight")
    ups, heads = shapes.row("up.{}.weight"), shapes.row("heads.{}.weight")
    _check_shapes(encoder, ups, heads)
    kernels = {shape[2:] for shape in (*encoder, *decoder)}
    if any(size % 2 == 0 for kernel in kernels for size in kernel):
        raise refused(f"it has kernels of even size: {sorted(kernels)}")
    network: dict[str, Any] = {
        "classes": heads[0][0],
        "channels": [shape[0] for shape in encoder],
        "strides": [shape[2:] for shape in ups],
        "kernels": [shape[2:] for shape in encoder],
        "decoder_kernels": [shape[2:] for shape in decoder],
        "convs": [_depth(shapes, "encoder", stage) for stage in range(len(encoder))],
        "decoder_convs": [_depth(shapes, "decoder", level) for level in range(len(decoder))],
        "bias": "heads.0.bias" in names,
    }
    if len(encoder[0]) == 5:
        return Converted("student", network, names)
    return _plain_2d(network, names)


def _depth(shapes: _Shapes, half: str, index: int) -> int:
    return len(shapes.row(f"{half}.{index}.{{}}.0.weight"))


def _check_shapes(*parts: list[tuple[int, ...]]) -> None:
    """Whether there are convolutions in 2D or 3D, from one channel to two classes or more.

    Args:
        parts: Weights' shapes of each part, those of the encoder first and of the heads last.
    """
    if not all(parts):
        raise refused("its encoder, its upsampling or its heads are missing")
    if {len(shape) for part in parts for shape in part} not in ({4}, {5}):
        raise refused("its weights are not those of convolutions in 2D or 3D")
    channels, classes = parts[0][0][1], parts[-1][0][0]
    if channels != 1:
        raise refused(f"it takes {channels} input channels; a CT has one")
    if classes < 2:
        raise refused("it has one output alone; background must be one of them")


def _plain_2d(network: dict[str, Any], names: Names) -> Converted:
    """A 2D network can only be a teacher: it finds tumours, by one fixed structure."""
    _check_binary(network["classes"])
    kernels = {*network["kernels"], *network["decoder_kernels"]}
    convs = {*network["convs"], *network["decoder_convs"]}
    if kernels != {(3, 3)} or set(network["strides"]) != {(2, 2)} or convs != {2}:
        raise refused("it is 2D with other kernels, strides or depths than 3×3, 2×2 and 2")
    teacher = {key: network[key] for key in ("classes", "channels", "bias")}
    renamed = {teacher_name(name): source for name, source in names.items()}
    return Converted("teacher", {**teacher, "attention": "none"}, renamed)


def _check_binary(classes: int) -> None:
    if classes != 2:
        raise refused(
            f"it is 2D with {classes} outputs; a 2D network is a teacher here, which tells tumour "
            "from the rest"
        )


def _published_teacher(found: Mapping[str, Shaped]) -> Converted:
    """The attention U-Net of the paper's own release (method.md §3)."""
    names, dropped = published_names(found)
    shapes = _Shapes(found, names)
    encoder, heads = shapes.row("encoder.{}.0.0.weight"), shapes.row("heads.{}.weight")
    _check_shapes(encoder, heads)
    _check_binary(heads[0][0])
    network = {
        "classes": heads[0][0],
        "channels": [shape[0] for shape in encoder],
        "attention": "published",
    }
    return Converted("teacher", network, names, dropped)


def _check_fit(found: Mapping[str, Shaped], converted: Converted) -> None:
    """Refuse what does not fill its network exactly."""
    try:
        check(NETWORKS[converted.role], converted.network, "network")
        wanted = {name: tuple(t.shape) for name, t in converted.build().state_dict().items()}
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise refused(f"it cannot be built: {error}") from error
    for name, shape in wanted.items():
        if name not in converted.names:
            raise refused(f"it has no weights for {name!r}")
        source = converted.names[name]
        if tuple(found[source].shape) != shape:
            raise refused(f"{source!r} is {tuple(found[source].shape)}, not {shape}")
    for name, source in converted.names.items():
        if name not in wanted:
            raise refused(f"there is no place for {source!r}")
