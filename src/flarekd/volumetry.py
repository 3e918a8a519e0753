"""What a label map says in numbers: organ volumes and HU, what the scan cuts off, the tumours.

Arithmetic on arrays and nothing else. Everything is done inside the boxes of the classes, so it
takes no second volume in memory; tumours are followed as runs of voxels (``components.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.components import Component, find_components, grow, largest_diameter_mm
from flarekd.extents import FACES
from flarekd.labels import tumor_of

PADDING_HU = -1500.0
"""Below this there is no tissue and no air, only what scanners write outside their circle."""

CIRCLE = "circle"
"""What is said beside the faces where a class touches padding: the scanner's circle cuts it."""

_PIECE_VOXELS = 1 << 18
"""So many voxels of a class's box are looked at together."""

MOST_TUMORS = 1000
"""So many parts are measured, the largest: what falls into more is noise, each costs its memory."""

Triple = tuple[float, float, float]
Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]
Masks = Callable[[slice], Mask]
"""A mask (z, y, x), some of its planes at a time."""


@dataclass(frozen=True)
class ClassStatistics:
    """One class of a label map.

    Attributes:
        label: Its id.
        name: Its name.
        voxels: How many there are.
        volume_ml: Their volume.
        mean_hu: Mean of the scan inside, None where the class is empty.
        sd_hu: Standard deviation (of the population), None where the class is empty.
        cut_off: Where the class touches the end of what was scanned, so that its volume is a
            lower bound: names of ``FACES``, and ``CIRCLE``. Empty where it lies wholly inside.
    """

    label: int
    name: str
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    cut_off: tuple[str, ...]


@dataclass(frozen=True)
class Tumor:
    """One connected part of the tumour class (26 neighbours).

    Attributes:
        number: 1 for the largest.
        voxels: How many there are.
        volume_ml: Their volume.
        diameter_mm: Largest distance between the centres of two of its voxels.
        mean_hu: Mean of the scan inside.
        centroid_zyx: Mean index, in voxels.
        centroid_mm: The same place in the patient (x to the left, y to the back, z to the head),
            None where no affine was given.
        organ: The organ that it touches most, ``none`` where it touches none.
        contact: Organ name to share of its shell, largest first. The shell are the voxels around
            it that share at least a corner with it.
        cut_off: As of a class.
    """

    number: int
    voxels: int
    volume_ml: float
    diameter_mm: float
    mean_hu: float
    centroid_zyx: Triple
    centroid_mm: Triple | None
    organ: str
    contact: Mapping[str, float]
    cut_off: tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """All of one case.

    Attributes:
        classes: By ascending id, those that are empty too.
        tumors: Largest first, ``MOST_TUMORS`` at most.
        parts: How many there are.
    """

    classes: tuple[ClassStatistics, ...]
    tumors: tuple[Tumor, ...]
    parts: int = 0


def measure(
    labels: NDArray[np.uint8],
    hu: NDArray[Any],
    spacing_zyx: Triple,
    names: Mapping[int, str],
    *,
    affine: NDArray[np.float64] | None = None,
) -> Statistics:
    """Measure every class of a label map, and every part of its tumour.

    Args:
        labels: uint8 (z, y, x), canonical.
        hu: The scan, int16 or float32 of the same shape.
        spacing_zyx: Millimetres.
        names: Id to name of the classes to measure, background left out. The connected parts of
            the one called tumor are the tumours.
        affine: 3×4, from an index (z, y, x) to the place in the patient, mm.

    Raises:
        ValueError: If the shapes differ, the labels are not uint8, or a spacing is not positive.
    """
    if labels.shape != hu.shape or labels.ndim != 3:
        message = f"labels are {labels.shape}, the scan {hu.shape} (z, y, x)"
        raise ValueError(message)
    if labels.dtype != np.uint8:
        message = f"labels are {labels.dtype}, not uint8"
        raise ValueError(message)
    if not min(spacing_zyx) > 0:
        message = f"spacing is {spacing_zyx} mm (z, y, x)"
        raise ValueError(message)
    scan = _Scan(labels, hu, spacing_zyx, names, affine)
    boxes: list[Box | None] = ndimage.find_objects(labels, max_label=max(names, default=1))
    tumor = tumor_of(names)
    box = boxes[tumor - 1] if tumor else None
    parts = find_components(labels, tumor, box) if tumor and box else ()
    return Statistics(
        tuple(_measure_class(scan, label, boxes[label - 1]) for label in sorted(names)),
        tuple(
            _measure_tumor(scan, number, part)
            for number, part in enumerate(islice(parts, MOST_TUMORS), start=1)
        ),
        len(parts),
    )


@dataclass(frozen=True, eq=False)
class _Scan:
    """The arguments of ``measure``."""

    labels: NDArray[np.uint8]
    hu: NDArray[Any]
    spacing_zyx: Triple
    names: Mapping[int, str]
    affine: NDArray[np.float64] | None

    def volume_ml(self, voxels: int) -> float:
        z, y, x = self.spacing_zyx
        return voxels * z * y * x / 1000.0


def _measure_class(scan: _Scan, label: int, box: Box | None) -> ClassStatistics:
    if box is None:
        return ClassStatistics(label, scan.names[label], 0, 0.0, None, None, ())

    def mask(planes: slice) -> Mask:
        found: Mask = scan.labels[box][planes] == label
        return found

    hu = scan.hu[box]
    voxels, mean = _mean(hu, mask)
    squares = sum(
        float(np.square(np.subtract(hu[piece][mask(piece)], mean, dtype=np.float64)).sum())
        for piece in _pieces(hu.shape)
    )
    return ClassStatistics(
        label,
        scan.names[label],
        voxels=voxels,
        volume_ml=scan.volume_ml(voxels),
        mean_hu=mean,
        sd_hu=math.sqrt(squares / voxels),
        cut_off=_cut_off(scan.hu, box, mask),
    )


def _measure_tumor(scan: _Scan, number: int, part: Component) -> Tumor:
    mask = part.mask()
    centroid = part.centroid_zyx
    contact = _contact(scan, part, mask)
    return Tumor(
        number,
        voxels=part.voxels,
        volume_ml=scan.volume_ml(part.voxels),
        diameter_mm=largest_diameter_mm(part.ends(), scan.spacing_zyx),
        mean_hu=_mean(scan.hu[part.box], mask.__getitem__)[1],
        centroid_zyx=centroid,
        centroid_mm=None if scan.affine is None else _place(scan.affine, centroid),
        organ=next(iter(contact), "none"),
        contact=contact,
        cut_off=_cut_off(scan.hu, part.box, mask.__getitem__),
    )


def _pieces(shape: tuple[int, ...], start: int = 0) -> Iterator[slice]:
    """Runs of the planes of an array from `start` on: no second volume in memory."""
    step = max(1, _PIECE_VOXELS // (shape[1] * shape[2]))
    stop = start + shape[0]
    return (slice(first, min(first + step, stop)) for first in range(start, stop, step))


def _mean(hu: NDArray[Any], mask: Masks) -> tuple[int, float]:
    """How many voxels of an array a mask holds, and their mean."""
    voxels, total = 0, 0.0
    for piece in _pieces(hu.shape):
        values = hu[piece][mask(piece)]
        voxels += values.size
        total += float(values.sum(dtype=np.float64))
    return voxels, total / voxels


def _contact(scan: _Scan, part: Component, mask: Mask) -> dict[str, float]:
    """Organ name to share of the shell of a component; what lies outside the scan is no shell."""
    z, y, x = (
        slice(max(side.start - 1, 0), min(side.stop + 1, length))
        for side, length in zip(part.box, scan.labels.shape, strict=True)
    )
    own_z, own_y, own_x = part.box
    rows = slice(own_y.start - y.start, own_y.stop - y.start)
    columns = slice(own_x.start - x.start, own_x.stop - x.start)
    sizes = tuple(side.stop - side.start for side in (z, y, x))
    counts = np.zeros(256, np.int64)
    for piece in _pieces(sizes, z.start):
        # with a plane more below and above, whose voxels are neighbours, too
        inside = np.zeros((piece.stop - piece.start + 2, *sizes[1:]), bool)
        first, last = max(piece.start - 1, own_z.start), min(piece.stop + 1, own_z.stop)
        planes = slice(first - piece.start + 1, last - piece.start + 1)
        inside[planes, rows, columns] = mask[first - own_z.start : last - own_z.start]
        shell = (grow(inside) & ~inside)[1:-1]
        counts += np.bincount(scan.labels[piece, y, x][shell], minlength=256)
    voxels, found = int(counts.sum()), counts.tolist()
    shares = {name: found[label] / voxels for label, name in scan.names.items() if found[label]}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _place(affine: NDArray[np.float64], index_zyx: Triple) -> Triple:
    x, y, z = (float(place) for place in affine @ np.append(index_zyx, 1.0))
    return x, y, z


def _cut_off(hu: NDArray[Any], box: Box, mask: Masks) -> tuple[str, ...]:
    """The ends of the scan that a mask touches, with its box in the scan."""
    found = [
        name
        for side, length, (first, last) in zip(box, hu.shape, FACES, strict=True)
        for name, touches in ((first, side.start == 0), (last, side.stop == length))
        if touches
    ]
    z, y, x = box
    rows = slice(max(y.start - 1, 0), y.stop + 1)
    columns = slice(max(x.start - 1, 0), x.stop + 1)
    own_rows = slice(y.start - rows.start, y.stop - rows.start)
    own_columns = slice(x.start - columns.start, x.stop - columns.start)
    around = hu[z, rows, columns]
    for piece in _pieces(around.shape):
        padding = around[piece] < PADDING_HU
        if not padding.any():
            continue
        # the mask itself counts too: a network may label what lies on padding
        beside = grow(padding, axes=(1, 2))[:, own_rows, own_columns]
        if (beside & mask(piece)).any():
            return (*found, CIRCLE)
    return tuple(found)
