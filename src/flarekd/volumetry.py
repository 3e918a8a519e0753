"""What a label map says in numbers: organ volumes and HU, what the scan cuts off, the tumours.

Arithmetic on arrays and nothing else. Everything is done inside the boxes of the classes, so it
takes no second volume in memory; tumours are followed as runs of voxels (``components.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

Triple = tuple[float, float, float]
Box = tuple[slice, slice, slice]


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
        tumors: Largest first.
    """

    classes: tuple[ClassStatistics, ...]
    tumors: tuple[Tumor, ...]


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
    parts = find_components(labels, tumor, box) if tumor and box else []
    return Statistics(
        tuple(_measure_class(scan, label, boxes[label - 1]) for label in sorted(names)),
        tuple(_measure_tumor(scan, number, part) for number, part in enumerate(parts, start=1)),
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
    mask = scan.labels[box] == label
    values = scan.hu[box][mask]
    return ClassStatistics(
        label,
        scan.names[label],
        voxels=values.size,
        volume_ml=scan.volume_ml(values.size),
        mean_hu=float(values.mean(dtype=np.float64)),
        sd_hu=float(values.std(dtype=np.float64)),
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
        mean_hu=float(scan.hu[part.box][mask].mean(dtype=np.float64)),
        centroid_zyx=centroid,
        centroid_mm=None if scan.affine is None else _place(scan.affine, centroid),
        organ=next(iter(contact), "none"),
        contact=contact,
        cut_off=_cut_off(scan.hu, part.box, mask),
    )


def _contact(scan: _Scan, part: Component, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Organ name to share of the shell of a component; what lies outside the scan is no shell."""
    around = tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, length))
        for side, length in zip(part.box, scan.labels.shape, strict=True)
    )
    padding = [
        (side.start - wide.start, wide.stop - side.stop)
        for side, wide in zip(part.box, around, strict=True)
    ]
    inside = np.pad(mask, padding)
    shell = scan.labels[around][grow(inside) & ~inside]
    counts = np.bincount(shell, minlength=256).tolist()
    shares = {
        name: counts[label] / shell.size for label, name in scan.names.items() if counts[label]
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _place(affine: NDArray[np.float64], index_zyx: Triple) -> Triple:
    x, y, z = (float(place) for place in affine @ np.append(index_zyx, 1.0))
    return x, y, z


def _cut_off(hu: NDArray[Any], box: Box, mask: NDArray[np.bool_]) -> tuple[str, ...]:
    """The ends of the scan that a mask touches, with its box in the scan."""
    found = [
        name
        for side, length, (first, last) in zip(box, hu.shape, FACES, strict=True)
        for name, touches in ((first, side.start == 0), (last, side.stop == length))
        if touches
    ]
    _, y, x = box
    rows = slice(max(y.start - 1, 0), y.stop + 1)
    columns = slice(max(x.start - 1, 0), x.stop + 1)
    padding = hu[box[0], rows, columns] < PADDING_HU
    if padding.any():
        # the mask itself counts too: a network may label what lies on padding
        beside = grow(padding, axes=(1, 2))[:, y.start - rows.start :, x.start - columns.start :]
        if (beside[:, : mask.shape[1], : mask.shape[2]] & mask).any():
            found.append(CIRCLE)
    return tuple(found)
