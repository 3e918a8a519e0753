"""What a label map and its scan say of each class: its place, its HU, how tumours differ.

Arithmetic on arrays and nothing else. Classes go by name, so that it can be written as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.components import Component, find_components, grow
from flarekd.extents import Extent, measure_extents
from flarekd.fusion_checks import big_pieces, wrong_sides
from flarekd.labels import BY_ID, TUMOR
from flarekd.volumetry import Tumor, measure

MOST_MASSES = 20
"""Parts of the tumour that are looked at one by one, the largest first."""

REACH_MM = 40.0
"""Organs are looked for within this distance of a tumour."""

COARSE_MM = 3.0
"""Distances are measured on about this grid: nobody asks for less."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """The scan inside one class: mean and standard deviation, HU."""

    mean_hu: float
    sd_hu: float


@dataclass(frozen=True)
class Mass:
    """One connected part of the tumour class.

    Attributes:
        number: 1 for the largest.
        ml: Its volume.
        diameter_mm: Its largest diameter.
        mean_hu: Mean of the scan inside.
        sd_hu: Standard deviation inside.
        contrast: How far that mean lies from the mean around it, over the standard deviations of
            both (root of their mean square): 0 where nothing in the scan tells its border.
        organ: The organ that it touches most, ``none`` where it touches none.
        organ_mm: How far the nearest organ is, 0 where it touches one, at most `REACH_MM`.
    """

    number: int
    ml: float
    diameter_mm: float
    mean_hu: float
    sd_hu: float
    contrast: float
    organ: str
    organ_mm: float


@dataclass(frozen=True)
class Measured:
    """All of one case.

    Attributes:
        height_mm: Of the scan.
        extents: Of each class that is there.
        looks: Of each class that is there.
        masses: The tumours, largest first, no more than `MOST_MASSES`.
        parts: How many tumours there are.
        swapped: As ``fusion_checks.wrong_sides``.
        pieces: As ``fusion_checks.big_pieces``.
    """

    height_mm: float
    extents: Mapping[str, Extent]
    looks: Mapping[str, Look]
    masses: tuple[Mass, ...]
    parts: int
    swapped: tuple[str, ...]
    pieces: Mapping[str, list[float]]


def look(labels: NDArray[np.uint8], hu: NDArray[Any], spacing_zyx: Triple) -> Measured:
    """Measure one case.

    Args:
        labels: uint8 (z, y, x), canonical; what is none of the classes 1 to 14 is passed over.
        hu: The scan, int16 or float32 of the same shape.
        spacing_zyx: Millimetres.

    Raises:
        ValueError: If the shapes differ, or the scan is not in HU.
    """
    names = {label: one.name for label, one in BY_ID.items()}
    found = measure(labels, hu, spacing_zyx, names)
    boxes = ndimage.find_objects(labels, max_label=TUMOR)
    box = boxes[TUMOR - 1]
    parts = () if box is None else find_components(labels, TUMOR, box)
    return Measured(
        height_mm=round(labels.shape[0] * spacing_zyx[0], 3),
        extents={
            names[label]: one
            for label, one in measure_extents(labels, spacing_zyx).items()
            if label in names
        },
        looks={
            one.name: Look(round(one.mean_hu, 2), round(one.sd_hu, 2))
            for one in found.classes
            if one.mean_hu is not None and one.sd_hu is not None
        },
        masses=tuple(
            _mass(labels, hu, spacing_zyx, one, part)
            for one, part in zip(found.tumors[:MOST_MASSES], parts, strict=False)
        ),
        parts=len(parts),
        swapped=tuple(wrong_sides(labels, boxes)),
        pieces=big_pieces(labels, boxes, math.prod(spacing_zyx) / 1000),
    )


def restore(values: Mapping[str, Any]) -> Measured:
    """What ``dataclasses.asdict`` made of a `Measured`, after its way through JSON."""
    extents = {
        name: Extent(**{**one, "cut_off": tuple(one["cut_off"])})
        for name, one in values["extents"].items()
    }
    return Measured(
        height_mm=values["height_mm"],
        extents=extents,
        looks={name: Look(**one) for name, one in values["looks"].items()},
        masses=tuple(Mass(**one) for one in values["masses"]),
        parts=values["parts"],
        swapped=tuple(values["swapped"]),
        pieces=values["pieces"],
    )


def _mass(
    labels: NDArray[np.uint8], hu: NDArray[Any], spacing: Triple, tumor: Tumor, part: Component
) -> Mass:
    around = _wider(part.box, labels.shape, (2, 2, 2))
    inside = np.zeros([side.stop - side.start for side in around], bool)
    inside[_within(part.box, around)] = part.mask()
    near = grow(inside)
    # a voxel apart: the border itself is a mixture of both
    shell = grow(near) & ~near & (labels[around] != TUMOR)
    mean, sd = _mean_sd(hu[around][inside])
    outer_mean, outer_sd = _mean_sd(hu[around][shell]) if shell.any() else (mean, sd)
    noise = max(math.sqrt((sd**2 + outer_sd**2) / 2), 1.0)
    return Mass(
        tumor.number,
        ml=round(tumor.volume_ml, 3),
        diameter_mm=round(tumor.diameter_mm, 1),
        mean_hu=round(mean, 2),
        sd_hu=round(sd, 2),
        contrast=round(abs(mean - outer_mean) / noise, 3),
        organ=tumor.organ,
        organ_mm=0.0 if tumor.organ != "none" else _organ_mm(labels, spacing, part),
    )


def _organ_mm(labels: NDArray[np.uint8], spacing: Triple, part: Component) -> float:
    """How far the nearest organ is from a part, mm, on a grid of about `COARSE_MM`."""
    margin = tuple(math.ceil(REACH_MM / mm) for mm in spacing)
    around = _wider(part.box, labels.shape, margin)
    steps = tuple(max(1, int(COARSE_MM // mm)) for mm in spacing)
    coarse = labels[around][tuple(slice(None, None, step) for step in steps)]
    is_organ = (coarse > 0) & (coarse < TUMOR)
    if not is_organ.any():
        return REACH_MM
    sampling = [mm * step for mm, step in zip(spacing, steps, strict=True)]
    far = ndimage.distance_transform_edt(~is_organ, sampling=sampling)
    first = [side.start for side in around]
    places = (part.ends() - first) // steps
    return round(min(float(far[tuple(places.T)].min()), REACH_MM), 1)


def _wider(
    box: tuple[slice, slice, slice], shape: tuple[int, ...], margin: tuple[int, ...]
) -> tuple[slice, ...]:
    return tuple(
        slice(max(side.start - more, 0), min(side.stop + more, length))
        for side, length, more in zip(box, shape, margin, strict=True)
    )


def _within(box: tuple[slice, ...], around: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(side.start - wide.start, side.stop - wide.start)
        for side, wide in zip(box, around, strict=True)
    )


def _mean_sd(values: NDArray[Any]) -> tuple[float, float]:
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
