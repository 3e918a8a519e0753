"""Efficient 2×2 slice windows of the teacher: the first decides (Fig. 5, method.md §6.2, 6.3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from flarekd.inference.accumulate import Accumulator, Network, check_network, forward
from flarekd.inference.slabs import labels_from_logits
from flarekd.inference.windows import check_count, pad_to_patch, slice_positions

Start = tuple[int, int]
"""First pixel (y, x) of a window."""


@dataclass(frozen=True)
class Probe:
    """The window of a slice that decides whether the others are run.

    Attributes:
        place: ``top-left`` is the first of the grid, as in the paper; ``center`` is a window more,
            in the middle of the slice, and loses less at the right and lower rim.
        min_foreground: Pixels of foreground that the probe must find (τ); 0 runs every window.
    """

    place: Literal["top-left", "center"] = "top-left"
    min_foreground: int = 1


@dataclass(frozen=True)
class SliceGroup:
    """What the teacher says of some neighbouring slices.

    Attributes:
        start: Index of the first slice.
        probability: float32 (n, C, y, x) in main memory, softmax over C, background where not
            looked at.
        windows_run: Windows the network was run on.
        windows_total: Windows of the full grid, a centred probe not counted.
    """

    start: int
    probability: torch.Tensor
    windows_run: int
    windows_total: int


@dataclass(frozen=True)
class SliceLabels:
    """Labels of a volume, uint8 (z, y, x), and how many windows they took."""

    labels: npt.NDArray[np.uint8]
    windows_run: int
    windows_total: int


@torch.inference_mode()
def segment_slices(
    network: Network,
    volume: torch.Tensor,
    patch_yx: Sequence[int],
    shape_yx: Sequence[int],
    *,
    probe: Probe | None = None,
    threshold: float = 0.5,
    batch: int = 4,
) -> SliceLabels:
    """Label a volume slice by slice at the in-plane size it had before it was resampled.

    Probabilities are interpolated in the plane before the arg max, a few slices at a time, so
    memory does not grow with the classes.

    Args:
        network: Maps (n, 1, y, x) to logits (n, C, y, x), in eval mode.
        volume: float32 (z, y, x), normalised, in-plane at the network's spacing, on its device.
        patch_yx: Window size.
        shape_yx: In-plane size of the labels.
        probe: The window that decides; None for the paper's.
        threshold: Probability above which a pixel is tumour rather than background; 0.5 is the
            arg max.
        batch: Slices a group and windows a forward pass.

    Returns:
        Class of every voxel, uint8 (z, *shape_yx), and counts of windows.

    Raises:
        ValueError: If the volume is not 3D, or the network is in training mode or not at full
            resolution.
    """
    groups = predict_slices(network, volume, patch_yx, probe=probe, batch=batch)
    return label_slices(groups, (volume.shape[0], shape_yx[0], shape_yx[1]), threshold)


@torch.inference_mode()
def label_slices(
    groups: Iterable[SliceGroup],
    shape_zyx: tuple[int, int, int],
    threshold: float = 0.5,
    probability: npt.NDArray[np.uint8] | None = None,
) -> SliceLabels:
    """Label what `predict_slices` says at the in-plane size a volume had before.

    Args:
        groups: All slices.
        shape_zyx: Of the labels.
        threshold: As in `segment_slices`.
        probability: Of `shape_zyx`; is filled with the probability of foreground, 255 times, to the
            nearest whole number. A rounded one may lie on the other side of the threshold.
    """
    labels = np.zeros(shape_zyx, np.uint8)
    run = total = 0
    for group in groups:
        if probability is not None:
            done = group.start + len(group.probability)
            foreground = 1 - group.probability[:, :1]
            resized = functional.interpolate(foreground, shape_zyx[1:], mode="bilinear")[:, 0]
            probability[group.start : done] = resized.mul_(255).round_().byte().numpy()
        # p > t and (1 - p)·t / (1 - t) < p are the same, and the latter is an arg max
        group.probability[:, 0] *= threshold / (1 - threshold)
        # most slices are background everywhere, and so between their pixels; NaN is not, and told
        is_empty = (group.probability[:, 1:] <= group.probability[:, :1]).flatten(1).all(1)
        some = (~is_empty).nonzero()[:, 0]
        if len(some):
            labels[group.start + some.numpy()] = labels_from_logits(
                group.probability[some].transpose(0, 1), (len(some), *shape_zyx[1:])
            )
        run, total = run + group.windows_run, total + group.windows_total
    return SliceLabels(labels, run, total)


@torch.inference_mode()
def predict_slices(
    network: Network,
    volume: torch.Tensor,
    patch_yx: Sequence[int],
    *,
    probe: Probe | None = None,
    batch: int = 4,
) -> Iterator[SliceGroup]:
    """Run the teacher over a volume, `batch` slices at a time.

    The first windows of a group's slices are one batch; of slices in which it found at least
    `probe.min_foreground` pixels the remaining windows follow. Windows of a slice are averaged with
    Gaussian weights; a single window is taken as it is.

    Args:
        network: Maps (n, 1, y, x) to logits (n, C, y, x), in eval mode.
        volume: float32 (z, y, x), normalised, on the network's device.
        patch_yx: Window size; smaller slices are padded with zeros on both sides.
        probe: The window that decides; None for the paper's.
        batch: Slices a group and windows a forward pass.

    Yields:
        Groups in ascending order that cover all slices.

    Raises:
        ValueError: If the volume is not 3D, or the network is in training mode or not at full
            resolution.
    """
    check_network(network)
    if volume.ndim != 3 or len(patch_yx) != 2:
        raise ValueError(f"volume {tuple(volume.shape)} must be 3D, patch {tuple(patch_yx)} 2D")
    probe = probe or Probe()
    patch = (patch_yx[0], patch_yx[1])
    for first in range(0, volume.shape[0], batch):
        slices, (rows, columns) = pad_to_patch(volume[first : first + batch], patch)
        size = (slices.shape[1], slices.shape[2])
        grid, order = _order(size, patch, probe, volume.shape[0])
        maps = [Accumulator(slices.shape[1:], patch) for _ in slices]
        found = _run(network, slices, [(i, order[0]) for i in range(len(slices))], maps)
        hits = [i for i, count in found if count >= probe.min_foreground]
        rest = [(i, start) for i in hits for start in order[1:]]
        for begin in range(0, len(rest), batch):
            _run(network, slices, rest[begin : begin + batch], maps)
        probability = torch.stack([m.mean(1.0) for m in maps])[..., rows, columns]
        yield SliceGroup(first, probability, len(slices) + len(rest), len(slices) * grid)


def _order(size: Start, patch: Start, probe: Probe, slices: int) -> tuple[int, list[Start]]:
    """The number of windows in the grid of a slice, and all windows, the deciding one first."""
    rows, columns = slice_positions(size[0], patch[0]), slice_positions(size[1], patch[1])
    check_count(slices * len(rows) * len(columns))
    grid = [(y, x) for y in rows for x in columns]
    if probe.place == "top-left":
        return len(grid), grid
    center = ((size[0] - patch[0]) // 2, (size[1] - patch[1]) // 2)
    return len(grid), [center, *(start for start in grid if start != center)]


def _run(
    network: Network,
    slices: torch.Tensor,
    windows: list[tuple[int, Start]],
    maps: list[Accumulator],
) -> list[tuple[int, int]]:
    """Run (slice, start) windows of `maps`' patch and return (slice, foreground pixels) of each."""
    height, width = maps[0].patch
    cut = [slices[i, y : y + height, x : x + width] for i, (y, x) in windows]
    probability = forward(network, torch.stack(cut)[:, None]).softmax(1)
    foreground = (probability.max(1).indices > 0).sum((1, 2)).tolist()
    for (i, start), window in zip(windows, probability, strict=True):
        maps[i].add(window, start)
    return [(i, int(count)) for (i, _), count in zip(windows, foreground, strict=True)]
