"""What a person should know of a fused label map: sources, conflicts, and what looks wrong.

Most of it follows from the counts of ``fusion.count``, without a second look at the voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from flarekd.components import find_components
from flarekd.fusion import COMBINATIONS, HUMAN, TEACHER, Rules, contradictions
from flarekd.labels import BY_ID, LABELS, NAMES, ORGANS, TUMOR

SIDES = ((2, 13), (7, 8), (1, 3))
"""Classes of which the first lies nearer to the patient's right: kidneys, adrenals, liver and
spleen."""

PIECE_SHARE, PIECE_ML = 0.1, 2.0
"""A piece beside the largest is big from this share of its organ and this volume on."""

TUMOR_SHARE = 0.5
"""From this share of an organ on, its tumour is worth a look."""

CONFLICT_SHARE = 0.2
"""From this share of what a person drew on, an organ pseudo-label that contradicts it is too."""

FEWEST_CASES = 10
"""Volumes of fewer cases say nothing about what is usual."""

FAR_OUT = 3.5
"""Robust standard deviations of the logarithm of a volume beyond which it is an outlier."""

LEAST_SPREAD = 0.1
"""Of that logarithm: cohorts whose organs are more alike than 10 % do not exist."""

MISSING_SHARE = 0.9
"""A class that this share of the cohort has is missed where it is not."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    """What is known of one fused case. Classes go by name, so that it can be written as JSON.

    Attributes:
        voxel_ml: Volume of a voxel.
        human: Voxels of each class that come from the partial label.
        pseudo: Voxels of each class that come from a pseudo-label.
        ignored: Voxels withheld because sources contradict each other.
        organ_against_human: Voxels in which the organ pseudo-label contradicts the partial label.
        unvouched: Voxels that were drawn with a class that nobody vouches for, drawn in part.
        conflicts: Voxels of `organ_against_human` that are of each organ in one of the two; those
            of two organs count for both.
        tumor_over_human: Voxels in which the tumour pseudo-label went over a drawn organ.
        tumor_over_pseudo: Voxels in which a tumour went over an organ pseudo-label.
        under_tumor: Voxels of each organ that the tumour pseudo-label went over.
        tumor_share: Share of each organ that tumour takes, where it takes any.
        pieces: Millilitres of an organ's big pieces, largest first, where there are two or more.
        swapped: Pairs that lie on the wrong sides, such as ``right_kidney/left_kidney``.
        cut: Classes that touch the first or the last slice.
        strange: Ids that were drawn and not vouched for.
        lacking: Ids that were vouched for and not drawn.
    """

    voxel_ml: float
    human: dict[str, int]
    pseudo: dict[str, int]
    ignored: int
    unvouched: int
    organ_against_human: int
    conflicts: dict[str, int]
    tumor_over_human: int
    tumor_over_pseudo: int
    under_tumor: dict[str, int]
    tumor_share: dict[str, float]
    pieces: dict[str, list[float]]
    swapped: list[str]
    cut: list[str]
    strange: list[int] = field(default_factory=list)
    lacking: list[int] = field(default_factory=list)

    def volume_ml(self, name: str) -> float:
        """Volume of a class, whoever it comes from."""
        return (self.human.get(name, 0) + self.pseudo.get(name, 0)) * self.voxel_ml


def examine(
    fused: NDArray[np.uint8],
    counts: NDArray[np.int64],
    ignored: NDArray[np.int64],
    how: Rules,
    *,
    annotated: Collection[int],
    spacing_zyx: Triple,
) -> Facts:
    """Examine one fused case.

    Args:
        fused: uint8 (z, y, x), canonical: x grows to the patient's left.
        counts: Of all its voxels, by ``fusion.count``.
        ignored: Of those that are withheld.
        how: The fusion's rules.
        annotated: λ.
        spacing_zyx: Millimetres.
    """
    kept = counts - ignored
    voxel_ml = math.prod(spacing_zyx) / 1000
    by_class = {
        label.id: (
            _sum(kept, (how.labels == label.id) & (how.sources == HUMAN)),
            _sum(kept, (how.labels == label.id) & (how.sources > HUMAN)),
        )
        for label in LABELS
    }
    drawn = counts.sum((1, 2))
    by_teacher = how.sources == TEACHER
    partial, _, organs = np.indices(COMBINATIONS)
    below = np.where((partial > 0) & (partial != TUMOR), partial, organs)
    against = contradictions(annotated) & bool(counts[..., 1:].any())  # saying nothing is none
    boxes = ndimage.find_objects(fused, max_label=TUMOR)
    return Facts(
        voxel_ml=voxel_ml,
        human={NAMES[label]: own for label, (own, _) in by_class.items() if own},
        pseudo={NAMES[label]: other for label, (_, other) in by_class.items() if other},
        ignored=int(ignored.sum()),
        unvouched=int(sum(drawn[label] for label in BY_ID if label not in annotated)),
        organ_against_human=_sum(counts, against),
        conflicts=_by_organ(
            lambda organ: _sum(counts, against & ((partial == organ) | (organs == organ)))
        ),
        tumor_over_human=_sum(kept, by_teacher & (partial > 0)),
        tumor_over_pseudo=_sum(kept, by_teacher & (partial == 0) & (organs > 0)),
        under_tumor=_by_organ(lambda organ: _sum(kept, by_teacher & (below == organ))),
        tumor_share=_tumor_share(kept, how, below),
        pieces=big_pieces(fused, boxes, voxel_ml),
        swapped=wrong_sides(fused, boxes),
        cut=[
            NAMES[label]
            for label, box in enumerate(boxes, 1)
            if box and (box[0].start == 0 or box[0].stop == len(fused))
        ],
        strange=[label for label in BY_ID if drawn[label] and label not in annotated],
        lacking=[label for label in sorted(annotated) if not drawn[label]],
    )


def outliers(cohort: Mapping[str, Facts]) -> dict[str, list[str]]:
    """Which organs of which cases have volumes unlike those of the cohort.

    Volumes are compared as logarithms, by median and median absolute deviation, among the cases in
    which the scan does not cut the organ off. One that is cut off is never too small, and an organ
    is missed only where nearly all others have it.

    Args:
        cohort: Case to its facts.

    Returns:
        Case to what to say of it, such as ``spleen 12 ml, usually 180 ml``; cases without are left
        out.
    """
    found: dict[str, list[str]] = {}
    for organ in ORGANS:
        name = NAMES[organ]
        volumes = {case: facts.volume_ml(name) for case, facts in cohort.items()}
        whole = [v for case, v in volumes.items() if v > 0 and name not in cohort[case].cut]
        if len(whole) < FEWEST_CASES:
            continue
        logarithms = np.log(whole)
        middle = float(np.median(logarithms))
        spread = max(1.4826 * float(np.median(abs(logarithms - middle))), LEAST_SPREAD)
        is_usual = sum(v > 0 for v in volumes.values()) >= MISSING_SHARE * len(volumes)
        for case, volume in volumes.items():
            usual = f"usually {shown(math.exp(middle))}"
            if volume == 0:
                if is_usual:
                    found.setdefault(case, []).append(f"{name} missing, {usual}")
                continue
            deviation = (math.log(volume) - middle) / spread
            too_small = deviation < -FAR_OUT and name not in cohort[case].cut
            if too_small or deviation > FAR_OUT:
                found.setdefault(case, []).append(f"{name} {shown(volume)}, {usual}")
    return found


def flags(facts: Facts, unlike: Iterable[str] = ()) -> list[str]:
    """What a person should look at, in words.

    Args:
        facts: Of the case.
        unlike: What `outliers` says of it.
    """
    found = [f"sides swapped? {pair}" for pair in facts.swapped]
    found += [
        f"{name} in {len(sizes)} big pieces: {', '.join(map(shown, sizes))}"
        for name, sizes in facts.pieces.items()
    ]
    found += [
        f"tumour takes {share:.0%} of {name}"
        for name, share in facts.tumor_share.items()
        if share >= TUMOR_SHARE
    ]
    drawn = sum(facts.human.values())
    if drawn and facts.organ_against_human >= CONFLICT_SHARE * drawn:
        volume = shown(facts.organ_against_human * facts.voxel_ml)
        found.append(f"organ pseudo-label contradicts the partial label in {volume}")
    found += [f"{NAMES[label]} drawn but not annotated" for label in facts.strange]
    found += [f"{NAMES[label]} annotated but not drawn" for label in facts.lacking]
    return [*found, *unlike]


def big_pieces(
    fused: NDArray[np.uint8], boxes: Sequence[Any], voxel_ml: float
) -> dict[str, list[float]]:
    """Millilitres of an organ's big pieces, largest first, where there are two or more.

    Args:
        fused: uint8 (z, y, x).
        boxes: Where the classes 1 to 14 lie, as ``ndimage.find_objects`` gives them.
        voxel_ml: Volume of a voxel.
    """
    found = {}
    for organ in ORGANS:
        if boxes[organ - 1] is None:
            continue
        sizes = [part.voxels for part in find_components(fused, organ, boxes[organ - 1])]
        least = max(PIECE_SHARE * sum(sizes), PIECE_ML / voxel_ml)
        big = [round(size * voxel_ml, 3) for size in sizes if size >= least]
        if len(big) > 1:
            found[NAMES[organ]] = big
    return found


def wrong_sides(fused: NDArray[np.uint8], boxes: Sequence[Any]) -> list[str]:
    """Pairs of `SIDES` that lie on the wrong sides, such as ``right_kidney/left_kidney``.

    Args:
        fused: uint8 (z, y, x), canonical: x grows to the patient's left.
        boxes: As `big_pieces` takes them.
    """
    places: dict[int, float] = {}
    for label in {label for pair in SIDES for label in pair}:
        box = boxes[label - 1]
        if box is not None:
            profile = (fused[box] == label).sum((0, 1))
            places[label] = box[2].start + float(
                np.average(np.arange(len(profile)), weights=profile)
            )
    return [
        f"{NAMES[right]}/{NAMES[left]}"
        for right, left in SIDES
        if right in places and left in places and places[right] > places[left]
    ]


def shown(ml: float) -> str:
    """A volume with its unit, in as many digits as anybody trusts."""
    return f"{ml:.0f} ml" if ml >= 10 else f"{ml:.2g} ml"


def _sum(counts: NDArray[np.int64], chosen: NDArray[np.bool_]) -> int:
    return int(counts[chosen].sum())


def _by_organ(voxels: Callable[[int], int]) -> dict[str, int]:
    """Organs by name with what is counted of each, those with nothing left out."""
    return {NAMES[organ]: found for organ in ORGANS if (found := voxels(organ))}


def _tumor_share(
    counts: NDArray[np.int64], how: Rules, below: NDArray[np.int64]
) -> dict[str, float]:
    shares = {}
    for organ in ORGANS:
        taken = _sum(counts, (how.labels == TUMOR) & (below == organ))
        if taken:
            left = _sum(counts, how.labels == organ)
            shares[NAMES[organ]] = round(taken / (taken + left), 4)
    return shares
