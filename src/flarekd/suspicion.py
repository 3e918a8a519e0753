"""Which cases a person should look at first: points for what is unlike the rest of the cohort.

Arithmetic on what was measured of each case and nothing else; nothing is asked of a truth. Every
reason has points, 0 to `MOST_POINTS`: a number counts from `FAR` robust deviations off the
cohort's median on, and gains a point with each further `FAR`. A case is as suspicious as the worst
reasons of each kind together, so that one fault that shows in ten organs does not count ten
times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from flarekd.appearance import REACH_MM, Mass, Measured
from flarekd.fusion_checks import CONFLICT_SHARE, shown
from flarekd.labels import IDS, NAMES, TUMOR, readable
from flarekd.norms import FAR, Usual
from flarekd.usuals import (
    LEAST_TUMOR_ML,
    Absent,
    Subject,
    Usuals,
    figures,
    learn_usuals,
    look_deviations,
    off,
    volume_deviation,
)

Kind = Literal["sides", "missing", "volume", "pieces", "shift", "intensity", "tumour", "sources"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MOST_POINTS = 4.0
"""Of one reason: beyond it nothing gets more certain."""

TOLD_FROM = 0.4
"""What is at least this share of a tumour's greatest deviation is told beside it."""

RARE = 0.2
"""What more than this share of the cohort has is not odd: an organ that lacks, or is in pieces."""


@dataclass(frozen=True)
class Reason:
    """One thing to look at.

    Attributes:
        kind: Reasons of one kind count once.
        points: 0 to `MOST_POINTS`.
        text: A sentence for people.
        label: The class that it is about, None where it is about all.
        part: Which connected part of it, 1 for the largest.
    """

    kind: Kind
    points: float
    text: str
    label: int | None = None
    part: int = 1

    @property
    def name(self) -> str:
        """Name of that class, empty where it is about all."""
        return "" if self.label is None else NAMES[self.label]


def judge(cohort: Mapping[str, Subject]) -> dict[str, list[Reason]]:
    """Say of every case what is suspicious of it, most points first.

    Args:
        cohort: Case to what is known of it; what is usual is learnt from all of them.

    Returns:
        Case to reasons, none where nothing is unlike the others.
    """
    known, absent = learn_usuals(cohort)
    judged = {}
    for case, subject in cohort.items():
        found = [
            *_sides(subject.measured),
            *_missing(absent[case], known),
            *_volumes(subject.measured, known),
            *_pieces(subject.measured, known),
            *_shift(subject.measured, known),
            *_intensities(subject.measured, known),
            *_tumors(subject.measured, known),
            *_sources(subject.conflict),
        ]
        judged[case] = sorted(found, key=lambda reason: -reason.points)
    return judged


def score(reasons: Iterable[Reason]) -> float:
    """The points of a case: the worst reason of each kind, added up.

    >>> score([Reason("volume", 2.0, ""), Reason("volume", 1.5, ""), Reason("sides", 4.0, "")])
    6.0
    """
    worst: dict[Kind, float] = {}
    for reason in reasons:
        worst[reason.kind] = max(worst.get(reason.kind, 0.0), reason.points)
    return round(sum(worst.values()), 2)


def rank_key(case: str, reasons: Iterable[Reason]) -> tuple[float, float, str]:
    """Sorts the most suspicious first; of the same score by all points together, then by name."""
    found = list(reasons)
    return -score(found), -sum(reason.points for reason in found), case


def points(deviation: float) -> float:
    """None below `FAR` deviations, one there, and one more with each further `FAR`.

    >>> [points(deviation) for deviation in (-9.0, 3.4, 3.5, 10.5, 99.0)]
    [0.0, 0.0, 1.0, 3.0, 4.0]
    """
    return 0.0 if deviation < FAR else min(deviation / FAR, MOST_POINTS)


def rarity(share: float) -> float:
    """Points of what a share of the cohort has: 1 for one in ten, 4 for one in a hundred.

    >>> [rarity(share) for share in (0.1, 0.01, 0.001)]
    [1.0, 4.0, 4.0]
    """
    return min(math.log10(share) ** 2, MOST_POINTS)


def _sides(measured: Measured) -> list[Reason]:
    found = []
    for pair in measured.swapped:
        right, left = pair.split("/")
        text = f"{readable(right)} lies farther to the left than {readable(left)}: sides swapped?"
        found.append(Reason("sides", MOST_POINTS, text, IDS[right]))
    return found


def _missing(absent: Absent, known: Usuals) -> list[Reason]:
    found = []
    for label, where in absent.items():
        share = known.lacking[label]
        if share <= RARE:
            worth = rarity(share)
            text = f"{readable(NAMES[label])} missing: {where}; {share:.1%} of such scans lack it"
            found.append(Reason("missing", worth, text, label))
    return found


def _volumes(measured: Measured, known: Usuals) -> list[Reason]:
    found = []
    for name, one in measured.extents.items():
        typical = known.norms.volumes.get(IDS[name])
        # what the scan cuts is smaller than usual for a reason
        if typical is None or (one.cut_off and one.ml < typical.median_ml):
            continue
        worth = points(abs(volume_deviation(one.ml, typical)))
        if worth:
            text = f"{readable(name)} {shown(one.ml)}, usually {shown(typical.median_ml)}"
            found.append(Reason("volume", worth, text, IDS[name]))
    return found


def _pieces(measured: Measured, known: Usuals) -> list[Reason]:
    found = []
    for name, sizes in measured.pieces.items():
        share = known.in_pieces[IDS[name]]
        if share <= RARE:
            text = f"{readable(name)} in {len(sizes)} big pieces: {', '.join(map(shown, sizes))}"
            found.append(Reason("pieces", rarity(share), text, IDS[name]))
    return found


def _shift(measured: Measured, known: Usuals) -> list[Reason]:
    lying = off(measured, known.mean_hu, known.log_sd)
    if lying is None or known.shift is None:
        return []
    # twice: it is the mean over all organs, which strays less by chance than a single one
    worth = min(2 * points(known.shift.deviation(lying)), MOST_POINTS)
    text = "the HU inside the organs spread more and are lower: do the labels lie off the scan?"
    return [Reason("shift", worth, text)] if worth else []


def _intensities(measured: Measured, known: Usuals) -> list[Reason]:
    found = []
    for name, one in measured.looks.items():
        label = IDS[name]
        if label == TUMOR or label not in known.mean_hu:
            continue
        mean, spread = look_deviations(label, one, known)
        by_mean, by_spread = points(abs(mean)), points(spread)
        if not (by_mean or by_spread):
            continue
        text = (
            f"{readable(name)} is {one.mean_hu:.0f} HU, usually {known.mean_hu[label].median:.0f}"
        )
        if by_spread > by_mean:
            usually = math.exp(known.log_sd[label].median)
            text = f"{readable(name)} spreads by {one.sd_hu:.0f} HU, usually by {usually:.0f}"
        found.append(Reason("intensity", max(by_mean, by_spread), text, label))
    return found


def _tumors(measured: Measured, known: Usuals) -> list[Reason]:
    found = []
    for mass in measured.masses if known.tumors else ():
        odd = _oddities(mass, known.tumors)
        # one number of all four: a little odd in everything is odd
        worth = points(math.hypot(*odd.values()))
        if worth and mass.ml >= LEAST_TUMOR_ML:
            where = "in no organ" if mass.organ == "none" else f"at the {readable(mass.organ)}"
            told = [
                text for text, far in odd.items() if far >= max(TOLD_FROM * max(odd.values()), 1)
            ]
            text = f"tumour of {shown(mass.ml)} {where}: {', '.join(told)}"
            found.append(Reason("tumour", worth, text, TUMOR, mass.number))
    return found


def _oddities(mass: Mass, tumors: Mapping[str, Usual]) -> dict[str, float]:
    """What may be unlike other tumours, in words, and how many deviations it is."""
    far = {name: tumors[name].deviation(value) for name, value in figures(mass).items()}
    mean, spread = tumors["mean_hu"].median, math.exp(tumors["log_sd"].median)
    least = "more than " if mass.organ_mm >= REACH_MM else ""
    return {
        f"{mass.mean_hu:.0f} HU, usually {mean:.0f}": abs(far["mean_hu"]),
        f"HU spread by {mass.sd_hu:.0f}, usually {spread:.0f}": max(far["log_sd"], 0.0),
        f"{least}{mass.organ_mm:.0f} mm from the nearest organ": max(far["organ_mm"], 0.0),
        "no border in the scan": max(-far["log_contrast"], 0.0),
    }


def _sources(conflict: float | None) -> list[Reason]:
    if conflict is None or conflict < CONFLICT_SHARE:
        return []
    text = f"the organ pseudo-label contradicts {conflict:.0%} of what a person drew"
    return [Reason("sources", min(conflict / CONFLICT_SHARE, MOST_POINTS), text)]
