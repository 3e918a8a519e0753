"""One resampler for training and inference: linear between half-pixel centres (method.md §2).

Voxel ``i`` of an axis of ``n`` covers ``[i, i + 1) / n`` of the grid's extent, whatever ``n`` is,
so both grids cover the same box and nothing shifts. Outside the outermost centres the border value
is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from flarekd.imaging.volume import Shape, Triple


def target_shape(shape_zyx: Sequence[int], spacing_zyx: Triple, target_zyx: Triple) -> Shape:
    """The shape of a grid of another spacing over the same extent: round(spacing / target · shape).

    Args:
        shape_zyx: Voxels.
        spacing_zyx: Millimetres a voxel.
        target_zyx: Millimetres a voxel wanted.

    Returns:
        Voxels of the new grid, at least 1 an axis.
    """
    z, y, x = (
        max(1, round(old / new * size))
        for size, old, new in zip(shape_zyx, spacing_zyx, target_zyx, strict=True)
    )
    return z, y, x


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """The same numbers as float32 in C order, a new array."""
    return np.array(array, dtype=np.float32, order="C")


def resample(
    array: NDArray[Any],
    shape: Shape,
    first: Callable[[NDArray[Any]], NDArray[np.float32]] = as_float32,
) -> NDArray[np.float32]:
    """Resample a scan to `shape`, trilinear with half-pixel centres (``align_corners=False``).

    Slice by slice: of the scan, only the slices about a new one are ever float32.

    Args:
        array: Numbers (z, y, x), any dtype and memory order.
        shape: The shape wanted.
        first: What is done to the voxels before they are interpolated, each for itself: maps an
            array to a new one of its shape.

    Returns:
        float32, shape `shape`, a new array.
    """
    if array.shape == tuple(shape):
        return first(array)
    result = torch.empty(tuple(shape))
    z = _Axis(slice(0, array.shape[0]), array.shape[0], shape[0])
    planes: dict[int, Tensor] = {}
    for new, (below, above, share) in enumerate(z.places()):
        planes = {
            old: planes[old] if old in planes else _resize(first(array[old]), shape[1:])
            for old in (below, above)
        }
        torch.lerp(planes[below], planes[above], share, out=result[new])
    numpy_result: NDArray[np.float32] = result.numpy()
    return numpy_result


def _resize(plane: NDArray[np.float32], shape_yx: tuple[int, int]) -> Tensor:
    """Resample a slice (y, x) to another size."""
    source = torch.from_numpy(plane)
    if source.shape == shape_yx:
        return source
    return functional.interpolate(source[None, None], shape_yx, mode="bilinear")[0, 0]


def resample_labels(array: NDArray[np.uint8], shape: Shape) -> NDArray[np.uint8]:
    """Resample a label map to `shape`: each class linearly, then the class with the most.

    Classes are done one after the other, each within its bounding box only, against a running
    maximum: the memory is a few volumes, whatever the number of classes. Where two classes tie,
    the lower id wins.

    Args:
        array: uint8 (z, y, x).
        shape: The shape wanted.

    Returns:
        uint8, shape `shape`, a new array that holds only ids of `array`.
    """
    if array.shape == tuple(shape):
        return np.array(array, order="C")
    from scipy import ndimage  # inference resamples no labels and starts without it

    result = torch.zeros(tuple(shape), dtype=torch.uint8)
    labels = np.ascontiguousarray(array)
    boxes = [
        (label, box) for label, box in enumerate(ndimage.find_objects(labels), 1) if box is not None
    ]
    if boxes:
        # background competes where some class reaches; elsewhere it has won
        everything = tuple(
            slice(min(box[axis].start for _, box in boxes), max(box[axis].stop for _, box in boxes))
            for axis in range(3)
        )
        best = torch.zeros(tuple(shape))
        source = torch.from_numpy(labels)
        for label, box in [(0, everything), *boxes]:
            _compete(source, label, box, best, result)
    numpy_result: NDArray[np.uint8] = result.numpy()
    return numpy_result


def _compete(
    labels: Tensor, label: int, box: tuple[slice, ...], best: Tensor, result: Tensor
) -> None:
    """Let one class win the voxels of `result` in which its share is above the `best` so far."""
    axes = [
        _Axis(extent, old, new)
        for extent, old, new in zip(box, labels.shape, result.shape, strict=True)
    ]
    share = (labels[tuple(axis.source for axis in axes)] == label).float()
    for index, axis in enumerate(axes):
        share = axis.interpolate(share, index)
    region = tuple(axis.target for axis in axes)
    wins = share > best[region]
    torch.maximum(best[region], share, out=best[region])
    result[region].masked_fill_(wins, label)


class _Axis:
    """Linear interpolation along one axis, only where a class reaches.

    Attributes:
        source: The input voxels that the touched output voxels read.
        target: The output voxels that at least one voxel of the class reaches; may be none.
    """

    def __init__(self, extent: slice, old: int, new: int) -> None:
        """Plan one axis of `old` input and `new` output voxels for a class that fills `extent`."""
        # float64: in float32 the coordinate of a far voxel is off by more than a label border bears
        position = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
        position = position.clamp(0, old - 1)
        below = position.floor().long()
        above = (below + 1).clamp(max=old - 1)
        touched = ((above >= extent.start) & (below < extent.stop)).nonzero().flatten().tolist()
        self.target = slice(touched[0], touched[-1] + 1) if touched else slice(0, 0)
        start = int(below[self.target][0]) if touched else 0
        self.source = slice(start, int(above[self.target][-1]) + 1) if touched else slice(0, 0)
        self._below = below[self.target] - start
        self._above = above[self.target] - start
        self._weight = (position - below)[self.target].float()

    def places(self) -> Iterator[tuple[int, int, float]]:
        """For each output voxel the two input voxels about it and the share of the upper."""
        below, above = (side + self.source.start for side in (self._below, self._above))
        return zip(below.tolist(), above.tolist(), self._weight.tolist(), strict=True)

    def interpolate(self, array: Tensor, axis: int) -> Tensor:
        """Resample `array`, cut to `source` along `axis`, to `target` along it."""
        weight = self._weight.view([-1 if index == axis else 1 for index in range(array.dim())])
        low, high = (array.index_select(axis, index) for index in (self._below, self._above))
        return torch.lerp(low, high, weight)
