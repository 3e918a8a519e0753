"""Connected parts of a class, as runs of voxels: small in memory however far they are spread.

A labelled array of a whole scan takes four bytes a voxel; metastases in liver and pelvis make it
nearly that large. Runs along x take a few numbers each, and all that is asked of a part (its size,
box, centroid, and the points between which it is longest) follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

FEW_POINTS = 200
"""So many points are compared with one another straight away; more are thinned to a hull first."""

_ROWS_AT_ONCE = 512
_RUNS_AT_ONCE = 1 << 14

Triple = tuple[float, float, float]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Component:
    """One connected part.

    Attributes:
        runs: Integers (n, 4): z, y, first x, and the x after the last, in array order.
    """

    runs: Integers

    @property
    def voxels(self) -> int:
        """How many voxels it has."""
        return int((self.runs[:, 3] - self.runs[:, 2]).sum())

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The smallest box around it, in the array."""
        z, y, start, _ = self.runs.min(axis=0).tolist()
        last_z, last_y, _, stop = self.runs.max(axis=0).tolist()
        return slice(z, last_z + 1), slice(y, last_y + 1), slice(start, stop)

    @property
    def centroid_zyx(self) -> Triple:
        """Mean index of its voxels."""
        z, y, start, stop = self.runs.T.astype(np.float64)
        lengths = stop - start
        middles = (z, y, (start + stop - 1) / 2)
        mean_z, mean_y, mean_x = (float(np.average(place, weights=lengths)) for place in middles)
        return mean_z, mean_y, mean_x

    def mask(self) -> NDArray[np.bool_]:
        """The component inside its box."""
        z_side, y_side, x_side = self.box
        depth, height = z_side.stop - z_side.start, y_side.stop - y_side.start
        width = x_side.stop - x_side.start
        z, y, start, stop = self.runs.T.astype(np.int64)
        row = ((z - z_side.start) * height + y - y_side.start) * (width + 1) - x_side.start
        # +1 where a run begins and -1 behind its end: one more column, so that runs never touch
        edges = np.zeros(depth * height * (width + 1), np.int8)
        edges[row + start] = 1
        edges[row + stop] = -1
        filled = np.cumsum(edges, dtype=np.int8).view(np.bool_)
        return filled.reshape(depth, height, width + 1)[..., :-1]

    def ends(self) -> Integers:
        """First and last voxel of every run, (m, 3) as z, y, x: its hull has no other corners."""
        z, y, start, stop = self.runs.T
        first, last = np.stack([z, y, start], axis=1), np.stack([z, y, stop - 1], axis=1)
        return np.concatenate([first, last[stop - 1 > start]])


class Components:
    """Connected parts, largest first, each made as it is asked for: noise has a million of them.

    Args:
        runs: Of all parts, int32 (n, 4) as in `Component`, in the order of the parts.
        ends: Of each part, the place after its last run.
    """

    def __init__(self, runs: Integers, ends: Integers) -> None:
        self._runs, self._ends = runs, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Component:
        end = self._ends[index]
        start = self._ends[index - 1] if index % len(self) else 0
        return Component(self._runs[start:end])

    def __iter__(self) -> Iterator[Component]:
        return (self[index] for index in range(len(self)))


def find_components(
    labels: NDArray[np.uint8], label: int, box: tuple[slice, slice, slice]
) -> Components:
    """Connected parts of a class, voxels that share a corner being connected (26 neighbours).

    Args:
        labels: Ids (z, y, x).
        label: The class.
        box: Where it lies; nothing outside is looked at.

    Returns:
        Largest first; those of one size in array order; none where no voxel is of the class.
    """
    runs = _runs(labels, label, box)
    if not len(runs):
        return Components(runs, np.zeros(0, np.int64))
    first, second = _touching(runs, labels.shape)
    links = coo_array((np.ones(first.size, bool), (first, second)), shape=(len(runs), len(runs)))
    del first, second
    count, owner = connected_components(links, directed=False)
    del links
    sizes = np.bincount(owner, runs[:, 3] - runs[:, 2], minlength=count)
    rank = np.empty(count, np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(count, dtype=np.int32)
    rank = rank[owner]
    del owner, sizes
    return Components(runs[np.argsort(rank, kind="stable")], np.cumsum(np.bincount(rank)))


def without_small(mask: NDArray[np.uint8], least_voxels: float) -> tuple[NDArray[np.uint8], int]:
    """Leave out the components of a mask that have too few voxels.

    Args:
        mask: uint8 (z, y, x), 0 or 1; voxels that share a corner are of one component.
        least_voxels: Smaller components go.

    Returns:
        A new mask, and how many components were left out.
    """
    kept, dropped = np.zeros_like(mask), 0
    for box in ndimage.find_objects(mask):  # one about all of it, or none
        components, count = ndimage.label(mask[box], np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel(), minlength=count + 1)
        keeps = sizes >= least_voxels
        keeps[0] = False
        kept[box] = keeps[components]
        dropped = count - int(keeps.sum())
    return kept, dropped


def largest_diameter_mm(points: Integers, spacing_zyx: Triple) -> float:
    """The largest distance between two points of a set (the maximum Feret diameter).

    Args:
        points: Indices (n, 3) as z, y, x, at least one.
        spacing_zyx: Millimetres.

    Returns:
        Millimetres from centre to centre, so 0 for a single voxel.
    """
    corners = _corners(points) * np.asarray(spacing_zyx)
    farthest = 0.0
    for start in range(0, len(corners), _ROWS_AT_ONCE):
        rows = corners[start : start + _ROWS_AT_ONCE]
        farthest = max(farthest, float(cdist(rows, corners, "sqeuclidean").max()))
    return float(np.sqrt(farthest))


def grow(mask: NDArray[np.bool_], axes: tuple[int, ...] = (0, 1, 2)) -> NDArray[np.bool_]:
    """Widen a mask (z, y, x) by one voxel along axes, corners included; never beyond the array."""
    for axis in axes:
        grown = mask.copy()
        wide, narrow = np.moveaxis(grown, axis, 0), np.moveaxis(mask, axis, 0)
        wide[1:] |= narrow[:-1]
        wide[:-1] |= narrow[1:]
        mask = grown
    return mask


def _runs(
    labels: NDArray[np.uint8], label: int, box: tuple[slice, slice, slice]
) -> NDArray[np.int32]:
    """The runs of a class along x, (n, 4), in array order."""
    z_side, y_side, x_side = box
    found = [np.zeros((0, 4), np.int32)]
    # a column more at both ends, of no class, and one plane for all: np.pad takes most of the time
    plane = np.zeros((y_side.stop - y_side.start, x_side.stop - x_side.start + 2), bool)
    for z in range(z_side.start, z_side.stop):
        np.equal(labels[z, y_side, x_side], label, out=plane[:, 1:-1])
        rows, places = np.nonzero(plane[:, 1:] != plane[:, :-1])  # starts and stops in turn
        y, start, stop = rows[::2] + y_side.start, places[::2], places[1::2]
        columns = [np.full_like(y, z), y, start + x_side.start, stop + x_side.start]
        found.append(np.stack(columns, axis=1).astype(np.int32))
    return np.concatenate(found)


def _touching(
    runs: NDArray[np.int32], shape: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of runs in neighbouring rows that share at least a corner, by their numbers.

    Some runs at a time: what is made on the way is many times what is found.
    """
    _, height, width = shape
    # one number a place, rows far enough apart that nothing touches across an end
    stride_y, stride_z = width + 3, (width + 3) * (height + 2)
    row = runs[:, 0].astype(np.int64) * stride_z + runs[:, 1].astype(np.int64) * stride_y
    starts, stops = row + runs[:, 2], row + runs[:, 3]
    del row
    pairs = []
    for number in range(0, len(runs), _RUNS_AT_ONCE):
        some = slice(number, number + _RUNS_AT_ONCE)
        for step in (stride_y, stride_z - stride_y, stride_z, stride_z + stride_y):
            # those of the other row that end at or behind our first voxel and begin at or before
            # our stop
            lowest = np.searchsorted(stops, starts[some] + step, side="left")
            beyond = np.searchsorted(starts, stops[some] + step, side="right")
            counts = np.maximum(beyond - lowest, 0)
            ours = np.repeat(np.arange(number, number + len(counts)), counts)
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            pairs.append(np.stack([ours, np.repeat(lowest, counts) + within]).astype(np.int32))
    first, second = np.concatenate(pairs, axis=1)
    return first, second


def _corners(points: Integers) -> NDArray[np.float64]:
    """The corners of the convex hull of points, or the points themselves where they are few.

    Flat sets are turned into their plane or line first, where the hull has an inside. Whole
    numbers of voxels tell for certain whether a set is flat.
    """
    centred: NDArray[np.float64] = (points - points[0]).astype(np.float64)
    if len(points) <= FEW_POINTS:
        return centred
    rank = int(np.linalg.matrix_rank(centred))
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:rank].T
    kept = [flat.argmin(), flat.argmax()] if rank == 1 else ConvexHull(flat).vertices
    corners: NDArray[np.float64] = centred[np.asarray(kept)]
    return corners
