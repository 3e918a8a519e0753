"""Logits between the voxels of two planes, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from flarekd.inference.head import Head, classes, greatest

MOST_PICKED = 1_000_000
"""Numbers (classes times voxels of a plane) that are interpolated at once in mixed cells."""

MOST_RESIZED = 16_000_000
"""Numbers of a plane, all its classes at native size, up to which it is resized once and kept for
the next slab; the classes of larger ones are done a few at a time, and again for each slab."""

_HEAD_PLACES = 1 << 16
"""Voxels of a plane whose logits a head makes at once: those of all stay in the cache."""

_CLASSES_AT_ONCE = 8
"""So many, then."""

_LOWEST = -1e30
"""Stands for -inf between voxels, where 0 · -inf would be no number."""


@dataclass(frozen=True)
class Axis:
    """For each native voxel of an axis: the source voxels about it and the share of the upper."""

    below: Tensor
    above: Tensor
    share: Tensor

    @staticmethod
    def between(native: int, source: int, device: torch.device) -> Axis:
        """Of an axis of so many native and source voxels."""
        # float64: in float32 the place of a far voxel is off by more than rounding
        position = (torch.arange(native, dtype=torch.float64) + 0.5) * source / native - 0.5
        position = position.clamp(0, source - 1)
        below = position.floor().long()
        above = (below + 1).clamp(max=source - 1)
        share = (position - below).float()
        return Axis(below.to(device), above.to(device), share.to(device))


def arg_max_whole(pair: Sequence[Tensor], slab: Tensor, shares: Tensor, head: Head | None) -> None:
    """A slab (m, n) between two planes (C, n) that are resized."""
    low, high = pair
    if head is None:
        for native in range(len(slab)):  # one by one: a class's plane stays in the cache
            share = shares[native : native + 1]
            slab[native : native + 1] = arg_max_between(low, high, share, None)
        return
    for first in range(0, slab.shape[1], _HEAD_PLACES):  # multiplied once for all slices
        some = slice(first, first + _HEAD_PLACES)
        slab[:, some] = arg_max_between(low[:, some], high[:, some], shares, head)


def arg_max_by_classes(pair: Sequence[Tensor], slab: Tensor, shares: Tensor) -> None:
    """A slab between two planes, resized a few classes at a time: a running maximum of maxima."""
    size = slab[0].numel()
    best = torch.full((len(slab), size), -torch.inf, device=shares.device)
    labels = torch.zeros((len(slab), size), dtype=torch.uint8, device=shares.device)
    for first in range(0, len(pair[0]), _CLASSES_AT_ONCE):
        low, high = (
            resize(plane[first : first + _CLASSES_AT_ONCE], slab.shape[1:]) for plane in pair
        )
        for native, share in enumerate(shares):
            found, value = greatest(
                torch.lerp(*both, share) for both in zip(low, high, strict=True)
            )
            labels[native] = torch.where(value > best[native], found + first, labels[native])
            torch.maximum(best[native], value, out=best[native])
    slab.copy_(labels.view(slab.shape))


def is_kept(channels: int, native_yx: Sequence[int], head: Head | None) -> bool:
    """Whether planes are resized whole; a head needs all the features that it is given."""
    return head is not None or channels * prod(native_yx) <= MOST_RESIZED


def working_bytes(
    channels: int, source_yx: Sequence[int], native_yx: Sequence[int], head: Head | None
) -> int:
    """Bytes that `labels_from_planes` takes at most beside its result and the planes it is given.

    Args:
        channels: Of a plane, features where there is a head.
        source_yx: Size of a plane.
        native_yx: Its native size.
        head: As `labels_from_planes` takes it.
    """
    together = channels if is_kept(channels, native_yx, head) else _CLASSES_AT_ONCE
    native = prod(native_yx)
    # two planes resized, and one as it is made ready for that; a slab's labels and best
    whole = 4 * together * (2 * native + prod(source_yx)) + 56 * native
    picked = min(MOST_PICKED, channels * native)
    return max(whole, 32 * picked) + 32 * native


def pick(plane: Tensor, places: Tensor, y: Axis, x: Axis) -> Tensor:
    """The logits (C, y, x) interpolated at some native `places` (n,) of the plane: (C, n)."""
    row, column = places // len(x.below), places % len(x.below)
    flat = plane.reshape(len(plane), -1)
    sides = []
    for rows in (y.below[row], y.above[row]):
        first, second = (
            flat.index_select(1, rows * plane.shape[2] + columns).float().clamp_(min=_LOWEST)
            for columns in (x.below[column], x.above[column])
        )
        sides.append(torch.lerp(first, second, x.share[column]))
    return torch.lerp(sides[0], sides[1], y.share[row])


def resize(plane: Tensor, shape_yx: Sequence[int]) -> Tensor:
    """Resize (C, y, x) bilinearly: float32 (C, y·x)."""
    plane = plane.float().clamp(min=_LOWEST)
    if plane.shape[1:] != shape_yx:
        plane = functional.interpolate(plane[None], tuple(shape_yx), mode="bilinear")[0]
    return plane.reshape(len(plane), -1)


def arg_max_between(low: Tensor, high: Tensor, share: Tensor, head: Head | None) -> Tensor:
    """Arg max over C of the mixes of (C, n) and (C, n) by each share (m,) of `high`: (m, n)."""
    share = share[:, None]
    pairs = zip(classes(low, head), classes(high, head), strict=True)
    return greatest(torch.lerp(*pair, share) for pair in pairs)[0]
