"""Tumours one by one: which were found, and what was found where there is none (pure).

A lesion is a connected part of the tumour class (26 neighbours). It is found where the other map
has at least one of its voxels, and a predicted part without a single voxel of the reference's
tumour is a false positive. How much was covered is kept beside, for those who ask for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from flarekd.components import find_components
from flarekd.labels import TUMOR
from flarekd.metrics.surface import require_one_shape

SIZES_MM: tuple[float, ...] = (10.0, 20.0, 50.0)
"""Diameters that part the size classes: the classes are below, between and from."""

Triple = tuple[float, float, float]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Lesion:
    """A connected part of the tumour in the reference, or in the prediction.

    Attributes:
        is_reference: Whether the reference drew it; else the prediction did.
        volume_ml: Its volume.
        covered: Share of its voxels that are tumour in the other map too, 0..1.
    """

    is_reference: bool
    volume_ml: float
    covered: float

    @property
    def diameter_mm(self) -> float:
        """Diameter of a ball of its volume."""
        return math.pow(6000 * self.volume_ml / math.pi, 1 / 3)

    @property
    def is_found(self) -> bool:
        """Whether the other map has any of it."""
        return self.covered > 0

    @property
    def is_false_positive(self) -> bool:
        """Predicted where the reference has no tumour."""
        return not self.is_reference and not self.is_found


def find_lesions(prediction: Labels, reference: Labels, spacing_zyx: Triple) -> list[Lesion]:
    """The lesions of both maps.

    Args:
        prediction: uint8 (z, y, x), ids 0..14.
        reference: uint8 (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x.

    Returns:
        Those of the reference, largest first, then those of the prediction, largest first.

    Raises:
        ValueError: If the shapes differ.
    """
    require_one_shape(prediction, reference)
    return [
        *_parts(reference, prediction, spacing_zyx, is_reference=True),
        *_parts(prediction, reference, spacing_zyx, is_reference=False),
    ]


def _parts(
    labels: Labels, other: Labels, spacing_zyx: Triple, *, is_reference: bool
) -> Iterator[Lesion]:
    box = (find_objects(labels, max_label=TUMOR) or [None])[TUMOR - 1]
    if box is None:
        return
    for part in find_components(labels, TUMOR, box):
        common = int(np.count_nonzero(part.mask() & (other[part.box] == TUMOR)))
        volume_ml = part.voxels * math.prod(spacing_zyx) / 1000
        yield Lesion(is_reference, volume_ml, common / part.voxels)


def size_names() -> list[str]:
    """What the size classes are called, smallest first."""
    bounds = [f"{bound:g}" for bound in SIZES_MM]
    between = [f"{a} to {b} mm" for a, b in zip(bounds, bounds[1:], strict=False)]
    return [f"under {bounds[0]} mm", *between, f"from {bounds[-1]} mm"]


def detection(cases: Mapping[str, Sequence[Lesion]]) -> dict[str, Any]:
    """How many lesions were found and how many made up, of all sizes and by size.

    Args:
        cases: The lesions of each case, those without any among them.

    Returns:
        ``lesions`` (of the reference), ``found``, ``sensitivity`` (their share, NaN without
        lesions), ``false_positives`` and ``false_positives_per_case``; ``sizes`` has the same of
        each size class by its name, lesions and false positives each by their own size.
    """
    lesions = [lesion for found in cases.values() for lesion in found]
    by_size: dict[str, list[Lesion]] = {name: [] for name in size_names()}
    names = list(by_size)
    for lesion in lesions:
        place = int(np.searchsorted(SIZES_MM, lesion.diameter_mm, side="right"))
        by_size[names[place]].append(lesion)
    count = len(cases)
    return {
        **_rates(lesions, count),
        "sizes": {name: _rates(some, count) for name, some in by_size.items()},
    }


def _rates(lesions: Iterable[Lesion], cases: int) -> dict[str, float]:
    drawn = found = made_up = 0
    for lesion in lesions:
        drawn += lesion.is_reference
        found += lesion.is_reference and lesion.is_found
        made_up += lesion.is_false_positive
    return {
        "lesions": drawn,
        "found": found,
        "sensitivity": found / drawn if drawn else math.nan,
        "false_positives": made_up,
        "false_positives_per_case": made_up / cases if cases else math.nan,
    }
