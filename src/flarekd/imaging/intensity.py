"""CT intensities: foreground statistics, normalisation, and whether a scan is CT in HU at all.

Source: nnU-Net's "CT" scheme as the paper uses it (method.md §2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.labels import BACKGROUND, IGNORE

FOREGROUND_STEP = 10
"""Every tenth foreground voxel of a case enters the statistics, as in nnU-Net."""

LEAST_SD_HU = 1.0
"""A smaller standard deviation is no tissue (noise alone is more) and would blow voxels up."""


@dataclass(frozen=True)
class IntensityStatistics:
    """What scans are clipped to and scaled by, all in HU.

    Attributes:
        lower: Percentile 0.5 of the foreground.
        upper: Percentile 99.5 of the foreground.
        mean: Mean of the foreground, not clipped.
        sd: Standard deviation of the foreground, not clipped.
    """

    lower: float
    upper: float
    mean: float
    sd: float

    def __post_init__(self) -> None:
        numbers = (self.lower, self.upper, self.mean, self.sd)
        if not all(map(math.isfinite, numbers)) or self.lower > self.upper or self.sd <= 0:
            message = f"intensity statistics make no sense: {self!r}"
            raise ValueError(message)

    def normalize(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Clip to [lower, upper], subtract the mean, divide by the standard deviation.

        Args:
            array: HU, any shape and dtype.

        Returns:
            float32 of the same shape, a new array.
        """
        result = np.array(array, dtype=np.float32, order="C")
        np.clip(result, self.lower, self.upper, out=result)
        result -= np.float32(self.mean)
        result /= np.float32(self.sd)
        return result


FLARE22_STATISTICS = IntensityStatistics(lower=-972.0, upper=294.0, mean=79.43, sd=142.00)
"""The 13 organs of the FLARE 2022 student's 1,973 cases; FLARE 2023's are not published."""


def foreground_sample(array: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Every tenth voxel whose label is a class, in memory order.

    Args:
        array: HU (z, y, x).
        labels: Ids (z, y, x).

    Returns:
        HU (n,), a new array; empty where nothing is labelled.

    Raises:
        ValueError: If the shapes differ.
    """
    if array.shape != labels.shape:
        message = f"image is {array.shape}, labels {labels.shape} (z, y, x)"
        raise ValueError(message)
    is_class = (labels != BACKGROUND) & (labels != IGNORE)
    sample: NDArray[Any] = array[is_class][::FOREGROUND_STEP].copy()
    return sample


@dataclass(frozen=True, eq=False)
class Histogram:
    """A sample of HU as counts: small, and as exact as the sample itself.

    Attributes:
        values: Distinct HU, ascending.
        counts: How often each occurs, int64.
    """

    values: NDArray[Any]
    counts: NDArray[np.int64]

    @staticmethod
    def of(sample: NDArray[Any]) -> Histogram:
        """Count a sample of any shape."""
        return Histogram(*np.unique(sample, return_counts=True))

    @staticmethod
    def pooled(parts: Iterable[Histogram]) -> Histogram:
        """All samples as one, whatever their order."""
        known = list(parts)
        if not known:
            return Histogram(np.zeros(0, np.int16), np.zeros(0, np.int64))
        values, place = np.unique(
            np.concatenate([part.values for part in known]), return_inverse=True
        )
        counts = np.zeros(values.size, np.int64)
        np.add.at(counts, place, np.concatenate([part.counts for part in known]))
        return Histogram(values, counts)

    @property
    def size(self) -> int:
        """Voxels counted."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean, HU."""
        return float(np.average(self.values.astype(np.float64), weights=self.counts))

    @property
    def sd(self) -> float:
        """Their standard deviation, HU."""
        squares = (self.values.astype(np.float64) - self.mean) ** 2
        return math.sqrt(float(np.average(squares, weights=self.counts)))

    def percentile(self, percent: float) -> float:
        """What ``np.percentile`` gives of the sample, in HU."""
        rank = percent / 100 * (self.size - 1)
        below = math.floor(rank)
        ends = np.cumsum(self.counts)
        low, high = (
            float(self.values[np.searchsorted(ends, index, side="right")])
            for index in (below, min(below + 1, self.size - 1))
        )
        return low + (high - low) * (rank - below)

    def clipped(self, lower: float, upper: float) -> Histogram:
        """The sample with what lies outside moved to the limits."""
        values, place = np.unique(np.clip(self.values, lower, upper), return_inverse=True)
        return Histogram(values, np.bincount(place, self.counts).astype(np.int64))


def statistics(
    foreground: Histogram, window: tuple[float, float] | None = None
) -> IntensityStatistics:
    """Percentiles 0.5 and 99.5, mean and sd of the foreground.

    Mean and sd are those of the voxels before clipping, as nnU-Net takes them (method.md §2).

    Args:
        foreground: Of all training cases (``foreground_sample``).
        window: HU to clip to instead of percentiles; mean and sd are then of what is left.

    Raises:
        ValueError: If there is no voxel at all.
    """
    if foreground.size == 0:
        message = "no foreground voxel in any training case"
        raise ValueError(message)
    if window is None:
        window = foreground.percentile(0.5), foreground.percentile(99.5)
    else:
        foreground = foreground.clipped(*window)
    return IntensityStatistics(*window, foreground.mean, max(foreground.sd, LEAST_SD_HU))


_PADDING_HU = -1500
"""Below this is padding outside the scanner's circle (−2048, −3024); air is −1024 with noise."""

_SAMPLE_VOXELS = 1_000_000


def not_ct_reason(array: NDArray[Any]) -> str | None:
    """Why this does not look like CT in HU, or None where it does.

    HU are absolute: fat lies near −100, air near −1000, soft tissue near 50. An image with (almost)
    nothing negative is an MR, a picture of 0..255, a PET, or CT whose intercept was lost; one that
    spans a few units is normalised. A guess from a regular subsample, meant for a note to a person:
    clipped HU and crops that hold fat pass.

    Args:
        array: Intensities (z, y, x), any dtype.

    Returns:
        A clause such as ``"nothing is below 0: …"``.
    """
    step = math.ceil((array.size / _SAMPLE_VOXELS) ** (1 / 3)) if array.size else 1
    sample = np.asarray(array[::step, ::step, ::step], dtype=np.float32).ravel()
    sample = sample[np.isfinite(sample)]
    scanned = sample[sample > _PADDING_HU]
    if scanned.size == 0:
        return "no voxel holds a measured value"
    least, most = float(scanned.min()), float(scanned.max())
    span = f"{least:g} to {most:g}"
    if least == most:
        return f"every voxel is {least:g}"
    low, high = np.percentile(scanned, (0.5, 99.5))
    if high - low < 50:
        return f"values run from {span}: normalised, not HU"
    if np.mean(scanned < -30) < 0.005:
        return f"values run from {span}, {_without_negatives(scanned, least, most)}"
    if np.mean((scanned > -150) & (scanned < 250)) < 0.005:
        return f"values run from {span}, but hardly any is fat or soft tissue (-150 to 250 HU)"
    return None


def _without_negatives(scanned: NDArray[np.float32], least: float, most: float) -> str:
    """What an image without fat and air below 0 may be."""
    if least >= 0 and most <= 255:
        return "a picture of 0 to 255 rather than HU"
    # stored CT counts from air at 0: soft tissue gathers near 1074 and little lies in between
    soft_tissue = np.mean((scanned > 900) & (scanned < 1200))
    if (
        least > -100
        and soft_tissue > 0.1
        and soft_tissue > np.mean((scanned > 250) & (scanned < 850))
    ):
        return "CT without its intercept (-1024) or an MR: air and fat should be negative"
    return "an MR, it seems: air and fat are negative in HU"
