"""Logits to labels at native resolution, slice by slice: classes × native volume never exists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Method = Literal["linear", "nearest"]


@torch.inference_mode()
def labels_from_logits(
    logits: torch.Tensor, shape_zyx: Sequence[int], method: Method = "linear"
) -> npt.NDArray[np.uint8]:
    """The most probable class of every native voxel.

    ``linear`` interpolates the logits trilinearly (half-pixel centres, ``align_corners=False``) and
    takes the arg max: what ``F.interpolate`` of the whole and ``argmax`` give, but for near ties.
    ``nearest`` takes the arg max at the network's resolution and the nearest voxel's label, as the
    paper did. Ties go to the lower id.

    Beside the result it holds two source slices at native in-plane size and a few of one class.

    Args:
        logits: Floating (C, z, y, x), on any device, contiguous or not; probabilities do as well.
        shape_zyx: Native size.
        method: ``linear`` or ``nearest``.

    Returns:
        uint8 of shape `shape_zyx`.

    Raises:
        ValueError: If `logits` is not 4D, has more than 256 classes, or a size is not positive.
    """
    if logits.ndim != 4 or not 1 <= logits.shape[0] <= 256:
        raise ValueError(f"logits must be (C, z, y, x) with C ≤ 256, not {tuple(logits.shape)}")
    if len(shape_zyx) != 3 or min(*shape_zyx, *logits.shape) < 1:
        raise ValueError(f"cannot resize {tuple(logits.shape)} to {tuple(shape_zyx)}")
    labels = np.empty(tuple(shape_zyx), np.uint8)
    slices = _linear if method == "linear" else _nearest
    for z, found in enumerate(slices(logits, (shape_zyx[0], shape_zyx[1], shape_zyx[2]))):
        labels[z] = found.cpu().numpy()
    return labels


def _linear(logits: torch.Tensor, shape: tuple[int, int, int]) -> Iterator[torch.Tensor]:
    """Labels of each native slice: between two source slices that are resized once and kept."""
    resized: dict[int, torch.Tensor] = {}
    for z in range(shape[0]):
        below, above, share = _between(z, shape[0], logits.shape[1])
        resized = {i: s for i, s in resized.items() if i >= below}
        for source in (below, above):
            if source not in resized:
                resized[source] = _resize(logits[:, source], shape[1:])
        yield _arg_max_between(resized[below], resized[above], share)


def _nearest(logits: torch.Tensor, shape: tuple[int, int, int]) -> Iterator[torch.Tensor]:
    """Labels of each native slice: those of the nearest source slice, row and column."""
    z_index, y_index, x_index = (
        _nearest_index(native, source)
        for native, source in zip(shape, logits.shape[1:], strict=True)
    )
    rows, columns = (torch.from_numpy(i).to(logits.device) for i in (y_index, x_index))
    last, labels = -1, torch.empty(0)
    for source in z_index.tolist():
        if source != last:
            found = _arg_max_between(logits[:, source], logits[:, source], 0.0)
            last, labels = source, found[rows][:, columns]
        yield labels


def _between(index: int, size: int, source_size: int) -> tuple[int, int, float]:
    """The two source slices about a native one, and the share of the upper."""
    position = max((index + 0.5) * source_size / size - 0.5, 0.0)
    below = min(int(position), source_size - 1)
    above = min(below + 1, source_size - 1)
    share = position - below if above > below else 0.0
    return below, (above if share > 0 else below), share


def _nearest_index(size: int, source_size: int) -> npt.NDArray[np.int64]:
    """The voxel whose centre is nearest, the upper of two: ``nearest-exact``, in integers."""
    return (2 * np.arange(size, dtype=np.int64) + 1) * source_size // (2 * size)


def _resize(plane: torch.Tensor, shape_yx: tuple[int, int]) -> torch.Tensor:
    """Resize (C, y, x) bilinearly in float32."""
    plane = plane.float()
    if tuple(plane.shape[1:]) == shape_yx:
        return plane
    return functional.interpolate(plane[None], shape_yx, mode="bilinear", align_corners=False)[0]


def _arg_max_between(below: torch.Tensor, above: torch.Tensor, share: float) -> torch.Tensor:
    """Arg max over C of the mix of two (C, y, x) planes, uint8 (y, x).

    A running maximum, class by class: torch's own argmax across the first axis is several times
    slower, and planes of one class stay in the cache.
    """
    labels = torch.zeros(below.shape[1:], dtype=torch.uint8, device=below.device)
    best = torch.lerp(below[0], above[0], share) if share else below[0].clone()
    for label in range(1, len(below)):
        value = torch.lerp(below[label], above[label], share) if share else below[label]
        labels.masked_fill_(value > best, label)
        torch.maximum(best, value, out=best)
    return labels
