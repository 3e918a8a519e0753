"""What a cohort is like: learned case by case as the store is made, merged here without reading it.

It goes into the model file, and its intensities are what scans are normalised by (method.md §2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from flarekd.imaging.intensity import (
    FLARE22_STATISTICS,
    Histogram,
    IntensityStatistics,
    statistics,
)
from flarekd.imaging.store import StoredCase

FEWEST_SAMPLES = 1000
"""Fewer foreground voxels than this say nothing about intensities.

FLARE22's published statistics stand in.
"""

PERCENTILES = (5, 50, 95)
Zyx = tuple[float, float, float]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Facts):
    """Percentiles 5, 50 and 95 over the cases, each (z, y, x)."""

    p5: Zyx
    median: Zyx
    p95: Zyx


class ClassFacts(_Facts):
    """How common a class is.

    Attributes:
        cases: That hold a voxel of it.
        voxels: Of the store's grid, in all cases.
    """

    cases: int
    voxels: int


class Intensity(_Facts):
    """The foreground, HU.

    Attributes:
        voxels: Every tenth foreground voxel of the store's grid: what the rest is taken of.
        p0_5: Percentile 0.5.
        median: Percentile 50.
        p99_5: Percentile 99.5.
        mean: Not clipped.
        sd: Not clipped.
    """

    voxels: int
    p0_5: float
    median: float
    p99_5: float
    mean: float
    sd: float


class Fingerprint(_Facts):
    """A cohort in numbers.

    Attributes:
        cases: How many.
        spacing_mm: Of the scans as they came.
        size: Voxels of the scans as they came.
        extent_mm: Of the scans as they came; None in model files of before it was kept.
        classes: Id to how common it is, ascending.
        intensity: None where nothing is labelled.
    """

    cases: int
    spacing_mm: Spread
    size: Spread
    extent_mm: Spread | None = None
    classes: dict[int, ClassFacts]
    intensity: Intensity | None


def take_fingerprint(cases: Sequence[StoredCase]) -> Fingerprint:
    """Merge what the store knows of its cases, at least one; their order does not matter."""
    foreground = Histogram.pooled(case.intensities() for case in cases)
    ids = sorted({class_id for case in cases for class_id in case.classes})
    return Fingerprint(
        cases=len(cases),
        spacing_mm=_spread([case.own_spacing_zyx for case in cases]),
        size=_spread([case.own_shape_zyx for case in cases]),
        extent_mm=_spread([_extent(case) for case in cases]),
        classes={
            class_id: ClassFacts(
                cases=sum(class_id in case.voxels for case in cases),
                voxels=sum(case.voxels.get(class_id, 0) for case in cases),
            )
            for class_id in ids
        },
        intensity=_intensity(foreground) if foreground.size else None,
    )


def intensity_statistics(
    cases: Sequence[StoredCase], window: tuple[float, float] | None = None
) -> IntensityStatistics:
    """Clip limits, mean and standard deviation of the store's foreground (method.md §2).

    Args:
        cases: Of the store.
        window: HU to clip to instead of percentiles; mean and deviation are then of what is left.
    """
    foreground = Histogram.pooled(case.intensities() for case in cases)
    if foreground.size < FEWEST_SAMPLES:
        return FLARE22_STATISTICS
    return statistics(foreground, window)


def _extent(case: StoredCase) -> Zyx:
    z, y, x = (
        size * spacing
        for size, spacing in zip(case.own_shape_zyx, case.own_spacing_zyx, strict=True)
    )
    return z, y, x


def _spread(triples: Sequence[Zyx]) -> Spread:
    p5, median, p95 = np.percentile(np.asarray(triples, np.float64), PERCENTILES, axis=0).tolist()
    return Spread(p5=tuple(p5), median=tuple(median), p95=tuple(p95))


def _intensity(foreground: Histogram) -> Intensity:
    return Intensity(
        voxels=foreground.size,
        p0_5=foreground.percentile(0.5),
        median=foreground.percentile(50),
        p99_5=foreground.percentile(99.5),
        mean=foreground.mean,
        sd=foreground.sd,
    )
