"""How FLARE 2023 scores a case, officially and without the quirks, and how it averages (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from flarekd.labels import LABELS, NAMES, ORGANS, TUMOR, Label
from flarekd.metrics.overlap import dice
from flarekd.metrics.surface import SurfacePair, require_one_shape

PROTOCOLS: tuple[str, ...] = ("flare23", "corrected")

TUBES: frozenset[int] = frozenset({5, 6, 10})
"""Aorta, IVC and esophagus: scored only on slices where the reference has them."""

FLARE23_LEAST_DSC = 0.2
"""Below this DSC the FLARE 2023 scorer gives NSD 0 without measuring."""

FLARE23_DIGITS = 4

MEANS: tuple[str, ...] = ("dsc", "nsd", "hd95_mm", "volume_bias", "volume_error")
"""What is averaged over cases."""

OFFICIAL: tuple[str, ...] = MEANS[:2]
"""Those that FLARE gives, and rounds."""

Triple = tuple[float, float, float]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class ClassScore:
    """One class of one case, NaN where a number is undefined.

    All numbers are of the same voxels: where the protocol cuts a class to some slices, distance and
    volumes are those of these slices too.

    Attributes:
        label: Class id, 1..14.
        dsc: Dice similarity coefficient, 0..1.
        nsd: Normalised surface Dice at the class's tolerance, 0..1.
        hd95_mm: 95th percentile of the distances between the surfaces; NaN unless both hold the
            class.
        reference_ml: Volume in the reference.
        prediction_ml: Volume in the prediction.
    """

    label: int
    dsc: float
    nsd: float
    hd95_mm: float = math.nan
    reference_ml: float = math.nan
    prediction_ml: float = math.nan

    @property
    def name(self) -> str:
        """The class's name in score files."""
        return NAMES[self.label]

    @property
    def volume_bias(self) -> float:
        """Predicted volume too much, as a share of the reference's; NaN where that is empty."""
        if not self.reference_ml > 0:
            return math.nan
        return (self.prediction_ml - self.reference_ml) / self.reference_ml

    @property
    def volume_error(self) -> float:
        """The bias without its sign: of many cases, too much and too little do not cancel."""
        return abs(self.volume_bias)


def score_case(
    prediction: NDArray[np.uint8], reference: NDArray[np.uint8], spacing_zyx: Triple, protocol: str
) -> list[ClassScore]:
    """Score every class of one case.

    Both empty is 1 and 1, exactly one empty is 0 and 0. Aorta, IVC and esophagus (5, 6, 10) are cut
    to the slices in which the reference has them, so that a tube longer than somebody drew it is
    not punished.

    ``flare23`` is the official scorer with its quirks: that cut ends *before* the last reference
    slice, a DSC below 0.2 gives NSD 0, and both are rounded to 4 digits. A class 5, 6 or 10 that
    the reference has in a single slice is cut to nothing, and the official arithmetic divides 0 by
    0: the score is NaN here too, and ``summarize`` leaves it out instead of losing the whole mean.

    ``corrected`` keeps the cut but with the last slice inside, and neither the 0.2 rule nor the
    rounding.

    Args:
        prediction: uint8 (z, y, x), ids 0..14; for ``flare23`` with z as the reference's file
            stores it, up or down, which decides what slice is the last.
        reference: uint8 (z, y, x), the same shape.
        spacing_zyx: Millimetres along z, y, x, of the reference.
        protocol: ``flare23`` or ``corrected``.

    Returns:
        One record a class, ids 1..14 ascending.

    Raises:
        ValueError: If the shapes differ or the protocol is unknown.

    Source: FLARE 2023's official scorer; the tolerances are those of ``labels.py``.
    """
    if protocol not in PROTOCOLS:
        message = f"protocol is {protocol!r}, known are {', '.join(PROTOCOLS)}"
        raise ValueError(message)
    require_one_shape(prediction, reference)
    # each class's bounding box, None where it is absent, in one pass over each array
    predicted, drawn = _boxes(prediction), _boxes(reference)
    return [
        _score_class(
            (prediction, reference),
            (predicted[label.id - 1], drawn[label.id - 1]),
            label,
            spacing_zyx,
            protocol == "flare23",
        )
        for label in LABELS
    ]


def _boxes(labels: NDArray[np.uint8]) -> list[Box | None]:
    """Each class's bounding box, None where it is absent; 1..14 ascending."""
    # most of a scan holds no class: finding out costs a tenth of looking for fourteen there
    occupied = []
    for axes in ((1, 2), (0, 2), (0, 1)):
        filled = np.flatnonzero(np.bitwise_or.reduce(labels, axis=axes))
        if not len(filled):
            return [None] * len(LABELS)
        occupied.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return [
        found
        and tuple(
            slice(side.start + part.start, side.start + part.stop)
            for side, part in zip(occupied, found, strict=True)
        )
        for found in find_objects(labels[tuple(occupied)], max_label=TUMOR)
    ]


def _score_class(
    maps: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    boxes: tuple[Box | None, Box | None],
    label: Label,
    spacing_zyx: Triple,
    is_official: bool,
) -> ClassScore:
    """One class of the prediction and the reference, which lie in these boxes."""
    ours, theirs = boxes
    voxel_ml = math.prod(spacing_zyx) / 1000
    if ours is None or theirs is None:
        value = 1.0 if ours is theirs else 0.0
        prediction_ml, reference_ml = (
            0.0 if box is None else int(np.count_nonzero(one[box] == label.id)) * voxel_ml
            for one, box in zip(maps, boxes, strict=True)
        )
        return ClassScore(label.id, value, value, math.nan, reference_ml, prediction_ml)
    box = [
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(ours, theirs, strict=True)
    ]
    if label.id in TUBES:
        box[0] = slice(theirs[0].start, theirs[0].stop - is_official)
    prediction, reference = (one[tuple(box)] == label.id for one in maps)
    dsc = dice(prediction, reference)
    surfaces = SurfacePair(prediction, reference, spacing_zyx)
    is_hopeless = is_official and dsc < FLARE23_LEAST_DSC
    nsd = 0.0 if is_hopeless else surfaces.dice(label.tolerance_mm)
    if is_official:
        dsc, nsd = _rounded(dsc), _rounded(nsd)
    volumes_ml = (int(np.count_nonzero(mask)) * voxel_ml for mask in (reference, prediction))
    return ClassScore(label.id, dsc, nsd, surfaces.hausdorff_mm(), *volumes_ml)


def summarize(records: Iterable[ClassScore], protocol: str) -> dict[str, Any]:
    """Average scores of many cases as Table 5 does.

    ``flare23`` rounds as the official scorer does: DSC and NSD of every class to 4 digits, and the
    means of these means once more.

    Args:
        records: The scores of all cases, in any order; NaN ones are left out.
        protocol: How they were scored.

    Returns:
        ``{"classes": {name: {"dsc", "nsd", …}}, "organs": …, "tumor": …, "all": …}`` with the keys
        ``MEANS``: the mean over cases of each class, the mean of the 13 organ means, the tumour's
        mean, and the mean of the 14 class means. NaN where there is nothing to average.
    """
    is_official = protocol == "flare23"
    by_label: dict[int, list[dict[str, float]]] = {label.id: [] for label in LABELS}
    for record in records:
        by_label[record.label].append({key: getattr(record, key) for key in MEANS})
    classes = {label: _mean_of(scores, is_official) for label, scores in by_label.items()}
    return {
        "classes": {NAMES[label]: means for label, means in classes.items()},
        "organs": _mean_of([classes[label] for label in ORGANS], is_official),
        "tumor": dict(classes[TUMOR]),
        "all": _mean_of(list(classes.values()), is_official),
    }


def _mean_of(entries: Sequence[dict[str, float]], is_official: bool) -> dict[str, float]:
    means = {}
    for key in MEANS:
        known = [entry[key] for entry in entries if not math.isnan(entry[key])]
        means[key] = float(np.mean(known)) if known else math.nan
        if is_official and key in OFFICIAL:
            means[key] = _rounded(means[key])
    return means


def _rounded(score: float) -> float:
    # as numpy does it, which the official script has: Python's own differs in some ties
    return float(np.round(score, FLARE23_DIGITS))
