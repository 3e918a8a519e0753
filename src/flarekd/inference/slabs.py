"""Logits to labels at native resolution, slab by slab: classes × native volume never exists.

Only voxels near a label border are interpolated. A trilinear mix is a convex combination: where the
eight corners of a cell of the network's grid share their arg max, no other class can overtake it
anywhere between them. That holds for ties too: the lowest of the classes that tie at a corner is
above every lower one at all corners, and never below a higher one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flarekd.inference.head import MOST_CLASSES, Head, classes, greatest
from flarekd.inference.mixing import (
    MOST_PICKED,
    Axis,
    arg_max_between,
    arg_max_by_classes,
    arg_max_whole,
    is_kept,
    pick,
    resize,
)

Method = Literal["linear", "nearest"]

MOST_MIXED = 0.25
"""Share of a slab's voxels in mixed cells above which all are interpolated: picking one costs about
four times as much as a voxel of a plane that is resized whole."""

_MOST_SLICES = 8
"""Native slices done at once, so that memory does not depend on how thin they are."""


def labels_from_logits(
    logits: Tensor, shape_zyx: Sequence[int], method: Method = "linear"
) -> npt.NDArray[np.uint8]:
    """`labels_from_planes` of logits that are all there.

    Args:
        logits: Floating (C, z, y, x), on any device, contiguous or not.
        shape_zyx: Native size.
        method: ``linear`` or ``nearest``.

    Raises:
        ValueError: As `labels_from_planes`, and if `logits` is not 4D.
    """
    if logits.ndim != 4:
        raise ValueError(f"logits must be (C, z, y, x), not {tuple(logits.shape)}")
    return labels_from_planes(logits.unbind(1), logits.shape[1:], shape_zyx, method)


@torch.inference_mode()
def labels_from_planes(
    planes: Iterable[Tensor],
    source_zyx: Sequence[int],
    shape_zyx: Sequence[int],
    method: Method = "linear",
    head: Head | None = None,
) -> npt.NDArray[np.uint8]:
    """The most probable class of every native voxel, from logits that come plane by plane.

    ``linear`` interpolates the logits trilinearly (half-pixel centres, ``align_corners=False``) and
    takes the arg max: what ``F.interpolate`` of the whole and ``argmax`` give, but for near ties.
    ``nearest`` takes the arg max at the network's resolution and the nearest voxel's label, as the
    paper did. Ties go to the lower id.

    Beside the result it holds two planes, and what `mixing.working_bytes` tells.

    Args:
        planes: Floating (C, y, x), z ascending, on any device, contiguous or not; probabilities do
            as well, and -inf for a class that is ruled out. They are all taken, one by one.
        source_zyx: How many they are, and their size.
        shape_zyx: Native size.
        method: ``linear`` or ``nearest``.
        head: Makes logits of planes that are not, float32 (1 + F, y, x): those of a few classes at
            a time, so that memory does not depend on how many there are.

    Returns:
        uint8 of shape `shape_zyx`.

    Raises:
        ValueError: If a plane is of another size or has more than 256 classes, a size is not
            positive, or a voxel is NaN or infinite.
    """
    sizes = (*source_zyx, *shape_zyx)
    if len(source_zyx) != 3 or len(shape_zyx) != 3 or min(sizes) < 1:
        raise ValueError(f"cannot resize {tuple(source_zyx)} to {tuple(shape_zyx)}")
    labels = torch.empty(tuple(shape_zyx), dtype=torch.uint8)
    come = _Planes(planes, source_zyx, head)
    fill = _linear if method == "linear" else _nearest
    fill(come, labels)
    come.finish()
    found: npt.NDArray[np.uint8] = labels.numpy()
    return found


class _Planes:
    """Planes (C, y, x) that come one after another, of which the last ones asked for are kept.

    Attributes:
        shape: How many they are, and their size.
        head: Makes logits of them, where they are none.
    """

    def __init__(
        self, planes: Iterable[Tensor], shape_zyx: Sequence[int], head: Head | None
    ) -> None:
        self.shape, self.head = tuple(shape_zyx), head
        self._coming = enumerate(planes)
        self._kept: dict[int, Tensor] = {}

    def between(self, low: int, high: int) -> tuple[Tensor, Tensor]:
        """The planes `low` and `high`; none below `low` can be asked for any more."""
        self._kept = {z: plane for z, plane in self._kept.items() if z >= low}
        while high not in self._kept:
            z, plane = next(self._coming)
            is_plane = plane.ndim == 3 and plane.shape[1:] == self.shape[1:]
            if not is_plane or not 1 <= len(plane) <= MOST_CLASSES:
                raise ValueError(
                    f"a plane must be (C ≤ 256, *{self.shape[1:]}), not {tuple(plane.shape)}"
                )
            if z >= low:
                self._kept[z] = plane
            del plane  # or it would be held while the next one is made
        return self._kept[low], self._kept[high]

    def finish(self) -> None:
        """Take the planes that no native slice needed."""
        self._kept = {}
        for _ in self._coming:
            pass


def _nearest(planes: _Planes, labels: Tensor) -> None:
    """Each native voxel: the label of the nearest source slice, row and column."""
    z_index, rows, columns = (
        _nearest_index(native, source)
        for native, source in zip(labels.shape, planes.shape, strict=True)
    )
    last, plane = -1, torch.empty(0)
    for z, source in enumerate(z_index.tolist()):
        if source != last:
            logits, _ = planes.between(source, source)
            found = _arg_max(logits, source, planes.head)
            last, plane = source, found[rows.to(found.device)][:, columns.to(found.device)]
        labels[z] = plane


def _nearest_index(size: int, source_size: int) -> Tensor:
    """The voxel whose centre is nearest, the upper of two: ``nearest-exact``, in integers."""
    return (2 * torch.arange(size) + 1) * source_size // (2 * size)


def _linear(planes: _Planes, labels: Tensor) -> None:
    """Each slab of native slices that lie between the same two source slices."""
    first_plane, _ = planes.between(0, 0)
    z, y, x = (
        Axis.between(native, source, first_plane.device)
        for native, source in zip(labels.shape, planes.shape, strict=True)
    )
    del first_plane
    cells = (y.below[:, None] * planes.shape[2] + x.below).flatten()
    logits: dict[int, Tensor] = {}
    corners: dict[int, Tensor] = {}
    resized: dict[int, Tensor] = {}
    for first, last, below in _slabs(z.below.tolist()):
        pair = (below, min(below + 1, planes.shape[0] - 1))
        logits.clear()  # or they would be held while the next plane is made
        logits.update(zip(pair, planes.between(*pair), strict=True))
        corners = {
            i: corners[i] if i in corners else _arg_max(logits[i], i, planes.head) for i in pair
        }
        low, high = corners[pair[0]], corners[pair[1]]
        mixed = _is_mixed(low, high).flatten().index_select(0, cells).nonzero()[:, 0]
        slab = labels[first:last].view(last - first, -1)
        shares = z.share[first:last]
        if len(mixed) <= MOST_MIXED * labels[0].numel():
            resized = {}
            # where the planes lie, and one way to main memory
            found = low.flatten().index_select(0, cells).repeat(last - first, 1)
            pieces = torch.split(mixed, max(1, MOST_PICKED // len(logits[below])))
            for places in pieces if len(mixed) else ():
                low, high = (pick(logits[i], places, y, x) for i in pair)
                found.index_copy_(1, places, arg_max_between(low, high, shares, planes.head))
            slab.copy_(found)
        elif is_kept(len(logits[below]), labels.shape[1:], planes.head):
            resized = {i: plane for i, plane in resized.items() if i in pair}
            for i in pair:
                if i not in resized:
                    resized[i] = resize(logits[i], labels.shape[1:])
            arg_max_whole([resized[i] for i in pair], slab, shares, planes.head)
        else:
            arg_max_by_classes([logits[i] for i in pair], labels[first:last], shares)


def _slabs(below: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Runs (first, last, below) of at most `_MOST_SLICES` native slices above one source slice."""
    first = 0
    for native in range(1, len(below) + 1):
        ends = native == len(below) or below[native] != below[first]
        if ends or native - first == _MOST_SLICES:
            yield first, native, below[first]
            first = native


def _arg_max(plane: Tensor, source: int, head: Head | None) -> Tensor:
    """Arg max over C of the source slice (C, y, x) of that number, uint8 (y, x).

    Raises:
        ValueError: If the greatest logit of a voxel is NaN or infinite.
    """
    labels, best = greatest(classes(plane, head))
    if not bool(best.isfinite().all()):
        raise ValueError(f"the logits of slice {source} hold NaN or infinity")
    return labels


def _is_mixed(low: Tensor, high: Tensor) -> Tensor:
    """Whether the corners of each cell differ, bool (y, x); the last row and column are cells too.

    Cell (y, x) reaches to (y + 1, x + 1), in the last row and column to the border voxel itself.
    """
    mixed = low != high
    mixed[:-1] |= (low[:-1] != low[1:]) | mixed[1:]
    # two corners of the next row differ only where one of them differs from its neighbour above
    mixed[:, :-1] |= (low[:, :-1] != low[:, 1:]) | mixed[:, 1:]
    return mixed
