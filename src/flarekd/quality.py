"""How far a tumour pseudo-label can be trusted: figures of the whole and of each of its components.

Arithmetic on arrays and nothing else. What a figure cannot be told of is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.components import Component, find_components, grow
from flarekd.labels import NAMES, ORGANS

LEAST_SPREAD = 0.05
"""Of the logarithm of spacing or extent in a cohort: scans that differ by 5 % are alike."""

NORMAL_SPAN = 3.29
"""Standard deviations between the percentiles 5 and 95 of a normal distribution."""

Triple = tuple[float, float, float]
Figures = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a pseudo-label is judged by.

    Attributes:
        mask: The pseudo-label, bool (z, y, x).
        probability: Of tumour, uint8 of the same shape, 255 for 1.
        other: The same scan labelled a second time, by another teacher or flipped.
        organs: Ids 1..13 where they are known, uint8; None where nothing is.
        hu: The scan.
        spacing_zyx: Millimetres.
    """

    mask: NDArray[np.bool_]
    probability: NDArray[np.uint8]
    other: NDArray[np.bool_]
    organs: NDArray[np.uint8] | None
    hu: NDArray[Any]
    spacing_zyx: Triple


def judge(
    evidence: Evidence, fingerprint: Mapping[str, Any]
) -> tuple[Figures, list[dict[str, Any]]]:
    """The figures of one pseudo-label.

    Args:
        evidence: The case.
        fingerprint: Of the cohort that the teacher was trained on, from its model file; may be
            empty.

    Returns:
        Those of the whole by their names in ``selection.CASE_FIGURES``, without ``uncertainty``;
        and those of each component, largest first, by ``COMPONENT_FIGURES`` and ``component``,
        ``voxels`` and ``organ`` (the one it touches most).
    """
    z, y, x = (slice(0, size) for size in evidence.mask.shape)
    parts = find_components(evidence.mask.view(np.uint8), 1, (z, y, x))
    voxel_ml = math.prod(evidence.spacing_zyx) / 1000
    judged = [_judge_part(evidence, part, fingerprint) for part in parts]
    rows: list[dict[str, Any]] = [
        {"component": number, "voxels": part.voxels, "volume_ml": part.voxels * voxel_ml, **found}
        for number, (part, found) in enumerate(zip(parts, judged, strict=True), 1)
    ]
    weights = [part.voxels for part in parts]
    figures: Figures = {
        "tumor_ml": sum(weights) * voxel_ml,
        "components": len(parts),
        "largest_ml": weights[0] * voxel_ml if weights else 0.0,
        "confidence": _mean(rows, "confidence", weights),
        "entropy": _mean(rows, "entropy", weights),
        "agreement": dice(evidence.mask, evidence.other),
        "off_organ": None,
    }
    if evidence.organs is not None:
        figures["off_organ"] = sum(row["organ_share"] == 0 for row in rows)
    figures |= distances(
        fingerprint, evidence.spacing_zyx, evidence.mask.shape, _mean(rows, "mean_hu", weights)
    )
    return figures, rows


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """DSC of two masks; 1 where both are empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else 1.0


def round_uncertainty(rounds: Sequence[NDArray[np.bool_]]) -> float | None:
    """How much the labels of a case changed from round to round.

    FLARE22's measure (method.md §1.2): the mean, over each round and the one after it, of the
    voxels that differ over the foreground of the later one; a foreground of nothing counts as one
    voxel.

    Args:
        rounds: The case's masks, oldest first.

    Returns:
        0 where nothing changed; None with fewer than two rounds.
    """
    shares = [
        int(np.count_nonzero(earlier != later)) / max(int(np.count_nonzero(later)), 1)
        for earlier, later in zip(rounds, rounds[1:], strict=False)
    ]
    return sum(shares) / len(shares) if shares else None


def distances(
    fingerprint: Mapping[str, Any],
    spacing_zyx: Triple,
    shape_zyx: Sequence[int],
    mean_hu: float | None,
) -> Figures:
    """How far a case is from what the teacher was trained on, in standard deviations.

    Spacing and extent are compared on the farthest axis, as logarithms; the deviation of the cohort
    is taken from its percentiles 5 and 95. The intensity is that of what was labelled as tumour
    against the tumours of the training.

    Args:
        fingerprint: As `judge` takes it.
        spacing_zyx: Millimetres.
        shape_zyx: Voxels.
        mean_hu: Of the pseudo-label, None where it is empty.

    Returns:
        ``spacing_distance``, ``extent_distance``, ``intensity_distance`` and, the largest of the
        three, ``distance``; None where it is not known.
    """
    extent = [size * mm for size, mm in zip(shape_zyx, spacing_zyx, strict=True)]
    figures: Figures = {
        "spacing_distance": _from_spread(fingerprint.get("spacing_mm"), spacing_zyx),
        "extent_distance": _from_spread(fingerprint.get("extent_mm"), extent),
        "intensity_distance": _intensity_distance(fingerprint, mean_hu),
    }
    known = [value for value in figures.values() if value is not None]
    return {**figures, "distance": max(known) if known else None}


def _judge_part(
    evidence: Evidence, part: Component, fingerprint: Mapping[str, Any]
) -> dict[str, Any]:
    around = tuple(
        slice(max(side.start - 1, 0), min(side.stop + 1, length))
        for side, length in zip(part.box, evidence.mask.shape, strict=True)
    )
    inside = np.zeros([side.stop - side.start for side in around], bool)
    place = tuple(
        slice(side.start - wide.start, side.stop - wide.start)
        for side, wide in zip(part.box, around, strict=True)
    )
    inside[place] = part.mask()
    shell = grow(inside) & ~inside
    border = shell | (inside & grow(~inside))
    probability = evidence.probability[around]
    mean_hu = float(evidence.hu[around][inside].mean(dtype=np.float64))
    found: dict[str, Any] = {
        "confidence": float(probability[inside].mean(dtype=np.float64)) / 255,
        "entropy": float(_ENTROPY[probability[border]].mean()),
        "agreement": float(evidence.other[around][inside].mean(dtype=np.float64)),
        "organ_share": None,
        "organ": "",
        "mean_hu": mean_hu,
        "intensity_distance": _intensity_distance(fingerprint, mean_hu),
    }
    if evidence.organs is not None:
        counts = np.bincount(evidence.organs[around][shell], minlength=len(NAMES))[: len(NAMES)]
        organs = counts[list(ORGANS)]
        found["organ_share"] = float(organs.sum() / max(counts.sum(), 1))
        found["organ"] = NAMES[ORGANS[int(organs.argmax())]] if organs.any() else "none"
    return found


def _entropies() -> NDArray[np.float64]:
    """Bits, of a probability of 0..255 / 255: 1 where it is a coin, 0 where it is sure."""
    p = np.arange(256) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return np.nan_to_num(bits, nan=0.0)


_ENTROPY = _entropies()


def _mean(rows: Sequence[Mapping[str, Any]], name: str, weights: Sequence[int]) -> float | None:
    """Mean of a figure of the components, each by its voxels."""
    if not rows:
        return None
    return float(np.average([row[name] for row in rows], weights=weights))


def _from_spread(
    spread: Mapping[str, Sequence[float]] | None, values: Sequence[float]
) -> float | None:
    if not spread:
        return None
    p5, median, p95 = (np.log(spread[name]) for name in ("p5", "median", "p95"))
    deviation = np.maximum((p95 - p5) / NORMAL_SPAN, LEAST_SPREAD)
    return float((abs(np.log(values) - median) / deviation).max())


def _intensity_distance(fingerprint: Mapping[str, Any], mean_hu: float | None) -> float | None:
    known = fingerprint.get("intensity")
    if mean_hu is None or not known or not known["sd"] > 0:
        return None
    return float(abs(mean_hu - known["mean"]) / known["sd"])
