"""What is counted of a case while it is in memory anyway: where its classes and lesions lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.labels import BACKGROUND, IGNORE

MOST_LOCATIONS = 10_000
LEAST_LOCATED = 0.01
LOCATION_SEED = 1234
"""Voxels kept of a class: up to 10,000 but at least 1 %, drawn with this seed (method.md §2)."""

MOST_LESION_VOXELS = 64
"""Voxels kept of a lesion: enough that its patches differ, few enough for thousands of lesions."""

_TOUCHING = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class ClassCensus:
    """Voxels of one class.

    Attributes:
        count: All of them.
        kept: Flat indices, ascending uint32: all of a small class, a sample of a large one.
    """

    count: int
    kept: NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class LesionCensus:
    """The lesions of a case, one after the other.

    Attributes:
        counts: Voxels of each, uint32.
        kept: Flat indices of ``kept_count`` voxels a lesion, one lesion after the other, ascending
            within each.
    """

    counts: NDArray[np.uint32]
    kept: NDArray[np.uint32]


def kept_count(count: int) -> int:
    """How many voxels are kept of a lesion of `count`."""
    return min(count, MOST_LESION_VOXELS)


def count_classes(labels: NDArray[np.uint8]) -> dict[int, ClassCensus]:
    """Count and sample the voxels of each foreground class.

    Args:
        labels: Ids (z, y, x).

    Returns:
        Id to census, ascending, background and what is to be ignored left out.

    Raises:
        ValueError: If there are more voxels than uint32 indexes.
    """
    if labels.size >= 2**32:
        message = f"labels are {labels.shape}: more voxels than a store's index counts"
        raise ValueError(message)
    generator = np.random.default_rng(LOCATION_SEED)
    foreground = np.flatnonzero((labels != BACKGROUND) & (labels != IGNORE))
    ids = labels.ravel()[foreground]
    result: dict[int, ClassCensus] = {}
    for class_id in np.unique(ids).tolist():
        flat = foreground[ids == class_id]
        wanted = max(min(MOST_LOCATIONS, flat.size), math.ceil(LEAST_LOCATED * flat.size))
        kept = flat
        if wanted < flat.size:
            kept = np.sort(generator.choice(flat, wanted, replace=False))
        result[class_id] = ClassCensus(flat.size, kept.astype(np.uint32))
    return result


def find_lesions(mask: NDArray[np.bool_]) -> LesionCensus:
    """Find connected components, voxels that share a corner being connected (26 neighbours).

    Args:
        mask: Tumour (z, y, x), fewer than 2³² voxels.

    Returns:
        Their sizes and a sample of each.
    """
    if not mask.any():
        return LesionCensus(np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    # nothing but the box around them is looked through
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    components, number = ndimage.label(mask[box], _TOUCHING)
    inside = np.flatnonzero(components)
    owner = components.ravel()[inside]
    first = [part.start for part in box]
    where = np.stack(np.unravel_index(inside, components.shape)) + np.reshape(first, (3, 1))
    flat = np.ravel_multi_index(tuple(where), mask.shape)
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=number + 1)[1:]
    generator = np.random.default_rng(LOCATION_SEED)
    kept = []
    for voxels in np.split(flat[order], np.cumsum(counts)[:-1]):
        wanted = kept_count(voxels.size)
        chosen = voxels
        if wanted < voxels.size:
            chosen = np.sort(generator.choice(voxels, wanted, replace=False))
        kept.append(chosen)
    return LesionCensus(counts.astype(np.uint32), np.concatenate(kept).astype(np.uint32))
