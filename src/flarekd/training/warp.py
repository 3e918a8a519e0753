"""One resampling in the slice plane for an image and its labels, the same for every slice.

The image is interpolated cubically, the labels linearly per class at a threshold of one half;
outside lies 0. What is fast depends on the number of slices: a single one goes through torch's
``grid_sample``, which works out the weights of a pixel again for every slice; a stack is laid out
with its slices innermost, and the weights of a pixel then act on all of them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CUBIC = -0.75
"""Slope of the cubic convolution kernel one pixel off its centre, as torch's bicubic has it."""

SLICES = 16
"""Slices moved at once: more of them no longer fit the caches."""

_BEFORE, _AFTER = 3, 4
"""Zeros around the source, so that a clamped coordinate finds all of its 4 × 4 taps."""


def warp(image: Tensor, labels: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Resample slices at the same places.

    Args:
        image: float32 (z, h, w).
        labels: uint8 (z, h, w).
        y: Row each target pixel looks at, float32 (H, W); may lie outside.
        x: Column likewise.

    Returns:
        float32 and uint8, (z, H, W). A label is set where its share is at
        least one half (the higher id where two tie), else 0.
    """
    if image.shape[0] == 1:
        return _warp_slice(image, labels, y, x)
    return _warp_stack(image, labels, y, x)


def cubic_weights(offset: Tensor) -> Tensor:
    """Weights of the four taps around a point by cubic convolution (Keys, with slope `CUBIC`).

    Args:
        offset: float32 (n,), 0 to 1, from the second tap on.

    Returns:
        float32 (n, 4).
    """
    rest = 1 - offset
    first, last = CUBIC * offset * rest * rest, CUBIC * rest * offset * offset
    second = ((CUBIC + 2) * offset - (CUBIC + 3)) * offset * offset + 1
    return torch.stack((first, second, 1 - first - second - last, last), dim=-1)


def _warp_slice(image: Tensor, labels: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = image.shape[1:]
    grid = torch.empty((1, *y.shape, 2), device=y.device)
    edge = torch.tensor(-1.0, device=y.device)
    torch.add(edge, x, alpha=2 / max(width - 1, 1), out=grid[0, ..., 0])
    torch.add(edge, y, alpha=2 / max(height - 1, 1), out=grid[0, ..., 1])
    moved = functional.grid_sample(
        image[None], grid, mode="bicubic", padding_mode="zeros", align_corners=True
    )[0]
    moved_labels = labels.new_zeros((1, *y.shape))
    if labels.any():
        pixels = _near_labels(labels[0], y, x)
        if len(pixels):
            taps = _locate(image.shape, y.flatten()[pixels], x.flatten()[pixels])
            moved_labels.view(-1)[pixels] = _warp_labels(taps.cut(labels), taps).flatten()
    return moved, moved_labels


def _near_labels(labels: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Flat indices of the target pixels that look into the box around all labels of a slice."""
    rows, columns = (labels.amax(axis).nonzero() for axis in (1, 0))
    near = (y > rows[0] - 1) & (y < rows[-1] + 1) & (x > columns[0] - 1) & (x < columns[-1] + 1)
    return near.flatten().nonzero().flatten()


def _warp_stack(image: Tensor, labels: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    taps = _locate(image.shape, y.flatten(), x.flatten())
    index, weights = _cubic_taps(taps)
    moved = image.new_empty((len(image), *y.shape))
    moved_labels = labels.new_empty(moved.shape)
    for start in range(0, len(image), SLICES):
        some = slice(start, start + SLICES)
        part = functional.embedding_bag(
            index, taps.cut(image[some]), mode="sum", per_sample_weights=weights
        )
        moved[some] = part.T.view(-1, *y.shape)
        moved_labels[some] = _warp_labels(taps.cut(labels[some]), taps).T.view(-1, *y.shape)
    return moved, moved_labels


@dataclass(frozen=True)
class _Taps:
    """Where the target's pixels (n of them) look, in a region of the source with zeros around.

    Attributes:
        rows: The region's rows.
        columns: Its columns.
        first: int32 (n,), flat index of each pixel's first tap of 4 × 4.
        down: float32 (n,), from the second row of taps to the point, 0 to 1.
        right: float32 (n,), from the second column.
    """

    rows: slice
    columns: slice
    first: Tensor
    down: Tensor
    right: Tensor

    @property
    def width(self) -> int:
        """Columns of the region with its zeros."""
        return _BEFORE + int(self.columns.stop - self.columns.start) + _AFTER

    def cut(self, stack: Tensor) -> Tensor:
        """The region of (z, h, w) with its zeros, as (pixels, z)."""
        region = stack[:, self.rows, self.columns]
        height = _BEFORE + region.shape[1] + _AFTER
        result = stack.new_empty((height, self.width, stack.shape[0]))
        for frame in (result, result.transpose(0, 1)):
            frame[:_BEFORE] = frame[-_AFTER:] = 0
        result[_BEFORE:-_AFTER, _BEFORE:-_AFTER] = region.permute(1, 2, 0)
        return result.flatten(0, 1)


def _locate(shape: torch.Size, y: Tensor, x: Tensor) -> _Taps:
    regions, firsts, offsets = [], [], []
    for place, length in ((y, shape[1]), (x, shape[2])):
        # beyond these a point sees zeros only
        clamped = place.clamp(-2, length + 1)
        below = clamped.floor()
        start, stop = max(0, int(below.min()) - 1), min(length, int(below.max()) + 3)
        regions.append(slice(min(start, length), max(stop, 0)))
        firsts.append(below + (_BEFORE - 1 - start))
        offsets.append(clamped - below)
    width = _BEFORE + regions[1].stop - regions[1].start + _AFTER
    first = firsts[0].mul_(width).add_(firsts[1]).int()
    return _Taps(regions[0], regions[1], first, offsets[0], offsets[1])


def _cubic_taps(taps: _Taps) -> tuple[Tensor, Tensor]:
    """Flat indices, int32, and weights, float32, of the 4 × 4 taps of each pixel, (n, 16)."""
    steps = torch.arange(4, device=taps.first.device, dtype=torch.int32)
    index = taps.first[:, None] + (steps[:, None] * taps.width + steps).flatten()
    weights = cubic_weights(taps.down)[:, :, None] * cubic_weights(taps.right)[:, None, :]
    return index, weights.flatten(1)


def _warp_labels(source: Tensor, taps: _Taps) -> Tensor:
    inner = taps.first + (taps.width + 1)
    corners = [source.index_select(0, inner + step) for step in (0, 1, taps.width, taps.width + 1)]
    result = corners[0]
    # where the four corners of a cell agree, so does every point between them
    mixed = (result != corners[1]) | (result != corners[2]) | (result != corners[3])
    voxels = mixed.flatten().nonzero().flatten()
    pixels = voxels // source.shape[1]
    down, right = taps.down[pixels], taps.right[pixels]
    up, left = 1 - down, 1 - right
    weights = torch.stack((up * left, up * right, down * left, down * right))
    ids = torch.stack([corner.flatten()[voxels] for corner in corners])
    shares = ((ids[:, None] == ids) * weights).sum(1)
    result.view(-1)[voxels] = ids.mul_(shares >= 0.5).amax(0)
    return result
