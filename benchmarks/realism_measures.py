"""What is measured of a scan, real or made, to tell how alike they are (pure).

All take arrays (z, y, x) on one grid of `SPACING` and HU.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.labels import IDS, NAMES, ORGANS

SPACING = 3.0
"""Millimetres along each axis: that of the real scan that has labels."""

PATCH = 10
"""Edge in voxels of the squares whose noise is taken: 30 mm, as many as fit into livers."""

SOFT_HU = (-150.0, 250.0)
REACH_MM = 12.0

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]


def body_mask(image: Image) -> Mask:
    """The patient without table and air around; what is hollow in him belongs to him.

    bool (z, y, x).
    """
    dense = ndimage.binary_opening(image > -300, np.ones((1, 3, 3)), iterations=2)
    parts, count = ndimage.label(dense)
    if not count:
        return np.zeros(image.shape, np.bool_)
    body = parts == 1 + int(np.argmax(ndimage.sum_labels(dense, parts, range(1, count + 1))))
    filled: Mask = np.stack([ndimage.binary_fill_holes(plane) for plane in body])
    return filled


def whole_organs(labels: Labels) -> list[int]:
    """Organs that are there and that neither the first nor the last slice cuts."""
    there, ends = (set(np.unique(part).tolist()) for part in (labels, labels[[0, -1]]))
    return [organ for organ in ORGANS if organ in there - ends]


def deep(mask: Mask, voxels: int) -> Mask:
    """What of a mask lies deeper than so many voxels."""
    inner: Mask = ndimage.binary_erosion(mask, iterations=voxels)
    return inner


def inner_hu(image: Image, labels: Labels, organ: int) -> NDArray[np.float32]:
    """HU (n,) of an organ a voxel below its surface, or of all of it where that leaves little."""
    mask = labels == organ
    inner = deep(mask, 1)
    chosen: NDArray[np.float32] = image[inner if inner.sum() >= 30 else mask]
    return chosen


def volumes_ml(labels: Labels) -> dict[str, float]:
    """Volume of every whole organ."""
    return {
        NAMES[organ]: float((labels == organ).sum()) * SPACING**3 / 1000
        for organ in whole_organs(labels)
    }


def places_mm(labels: Labels) -> dict[str, tuple[float, float, float]]:
    """Middle of every whole organ (left, back, up), from the point half-way between the kidneys."""
    whole = whole_organs(labels)
    kidneys = IDS["right_kidney"], IDS["left_kidney"]
    if not set(kidneys) <= set(whole):
        return {}
    middles = dict(zip(whole, ndimage.center_of_mass(labels > 0, labels, whole), strict=True))
    origin = np.mean([middles[kidney] for kidney in kidneys], axis=0)
    found = {}
    for organ, middle in middles.items():
        up, back, left = (np.asarray(middle) - origin) * SPACING
        found[NAMES[organ]] = (float(left), float(back), float(up))
    return found


def noise_power(image: Image, mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Noise power spectrum in axial squares that lie wholly within a mask.

    A plane is fitted to each square and taken off, and with it part of the lowest frequencies: what
    varies slowly is no noise.

    Returns:
        Frequencies (k,) in 1/mm, and power (k,) in HU²·mm², NaN where no square fits.
    """
    squares = []
    for plane, allowed in zip(image, mask, strict=True):
        for y in range(0, plane.shape[0] - PATCH + 1, PATCH // 2):
            for x in range(0, plane.shape[1] - PATCH + 1, PATCH // 2):
                at = np.s_[y : y + PATCH, x : x + PATCH]
                if allowed[at].all():
                    squares.append(_without_plane(plane[at]))
    across = np.fft.fftfreq(PATCH, SPACING)
    radius = np.hypot(across[:, None], across[None])
    edges = np.linspace(0, 0.5 / SPACING, PATCH // 2 + 1)[1:]  # the mean is no noise
    bins = np.digitize(radius, edges)
    frequencies = (edges[:-1] + edges[1:]) / 2
    if not squares:
        return frequencies, np.full(len(frequencies), math.nan)
    power = (np.abs(np.fft.fft2(np.stack(squares))) ** 2).mean(axis=0) * (SPACING / PATCH) ** 2
    return frequencies, np.array([power[bins == k + 1].mean() for k in range(len(frequencies))])


def _without_plane(square: Image) -> NDArray[np.float64]:
    y, x = np.indices(square.shape)
    base = np.stack([np.ones(square.size), y.ravel(), x.ravel()], axis=1)
    values = square.ravel().astype(np.float64)
    fitted = base @ np.linalg.lstsq(base, values, rcond=None)[0]
    return (values - fitted).reshape(square.shape)


def noise_hu(image: Image, mask: Mask) -> tuple[float, float]:
    """Standard deviation of neighbours' differences over √2 within a mask: in-plane, along z."""
    found = []
    for axis in (2, 0):
        both = np.take(mask, range(1, mask.shape[axis]), axis)
        both = both & np.take(mask, range(mask.shape[axis] - 1), axis)
        steps = np.diff(image, axis=axis)[both]
        found.append(float(steps.std()) / math.sqrt(2) if steps.size > 50 else math.nan)
    return found[0], found[1]


def edge_profile(
    image: Image, mask: Mask, among: Mask | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median HU by the distance to a mask's surface.

    Args:
        image: HU.
        mask: What the surface is of.
        among: Voxels that count; all without it.

    Returns:
        Distances (k,) in mm, negative within, and HU (k,), NaN where no voxel lies.
    """
    grow = int(REACH_MM / SPACING) + 1
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    box = tuple(slice(max(0, part.start - grow), part.stop + grow) for part in found)
    inside = mask[box]
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    distance_mm = (distance - np.sign(distance) / 2) * SPACING
    steps = np.arange(-REACH_MM + SPACING / 2, REACH_MM, SPACING)
    allowed = among[box] if among is not None else np.ones_like(inside)
    profile = [
        np.median(image[box][near]) if near.any() else math.nan
        for near in (allowed & (np.abs(distance_mm - step) <= SPACING / 2) for step in steps)
    ]
    return steps, np.array(profile)


def steepness(image: Image, body: Mask) -> tuple[float, float]:
    """HU/mm of the gradient in soft tissue a good way below the skin: median, 90th percentile."""
    inner = ndimage.binary_erosion(body, np.ones((1, 3, 3)), iterations=4)
    inner &= (image > SOFT_HU[0]) & (image < SOFT_HU[1])
    squares = [np.square(part) for part in np.gradient(image, SPACING)]
    gradient = np.sqrt(np.sum(squares, axis=0))[inner]
    return float(np.median(gradient)), float(np.percentile(gradient, 90))


def width_mm(profile: NDArray[np.float64]) -> float:
    """How far an edge as steep as a profile at its steepest takes from its least HU to its most."""
    steps = np.abs(np.diff(profile))
    if not np.isfinite(steps).any():
        return math.nan
    return float(np.nanmax(profile) - np.nanmin(profile)) / float(np.nanmax(steps)) * SPACING
