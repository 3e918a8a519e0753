"""What is usual in a cohort: how large its organs are, and how far above one another they lie.

Arithmetic on what was measured of each case and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekd.extents import Extent
from flarekd.labels import ORGANS, TUMOR

LEAST_VOLUMES = 10
"""Fewer whole organs than this say nothing of what is typical."""

LEAST_PAIRS = 5
"""Fewer cases with both organs whole say nothing of how far apart they lie."""

FAR = 3.5
"""Robust deviations of a volume beyond which it is unusual (a modified z-score, after Iglewicz and
Hoaglin 1993)."""

LEAST_SPREAD = 0.1
"""Least robust deviation of the logarithm of a volume: a cohort of like bodies tells no tenth."""

_SD_OF_MAD = 1.4826

Organs = Mapping[int, Extent]


@dataclass(frozen=True)
class Facts:
    """What was measured of one labelled or unlabelled case.

    Attributes:
        case: Its id.
        height_mm: Of the scan.
        drawn: The classes of its label file, None where it has none.
        pseudo: The organs of its pseudo-label, None where it has none.
        dataset: The data set that says what it has annotated, empty where its ids say that.
        vouched: The classes that data set has.
    """

    case: str
    height_mm: float
    drawn: Organs | None
    pseudo: Organs | None
    dataset: str = ""
    vouched: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Typical:
    """Volumes of an organ over the cohort: the median, and where `FAR` deviations lie, ml."""

    cases: int
    median_ml: float
    low_ml: float
    high_ml: float


@dataclass(frozen=True)
class Offset:
    """How far the centre of one organ lies above another's: median and robust deviation, mm."""

    cases: int
    mm: float
    spread_mm: float


@dataclass(frozen=True)
class Norms:
    """What is usual in the cohort.

    Attributes:
        volumes: By organ.
        heights_mm: By organ, the median.
        offsets: By pair of organs, of the second above the first.
    """

    volumes: Mapping[int, Typical]
    heights_mm: Mapping[int, float]
    offsets: Mapping[tuple[int, int], Offset]


def learn(cases: Sequence[Facts]) -> Norms:
    """Learn what is usual from whole organs: drawn ones, and where those are few pseudo-labels."""
    volumes, heights = {}, {}
    for label in ORGANS:
        drawn = [case.drawn[label] for case in cases if case.drawn and label in case.drawn]
        guessed = [case.pseudo[label] for case in cases if case.pseudo and label in case.pseudo]
        whole = [one for one in drawn if not one.cut_off]
        if len(whole) < LEAST_VOLUMES:
            whole += [one for one in guessed if not one.cut_off]
        if len(whole) >= LEAST_VOLUMES:
            volumes[label] = _typical([one.ml for one in whole])
        tall = [one.high_mm - one.low_mm for one in [*drawn, *guessed] if one.is_whole_in_z]
        if len(tall) >= LEAST_PAIRS:
            heights[label] = float(np.median(tall))
    return Norms(volumes, heights, _offsets(cases))


def centres_mm(case: Facts) -> dict[int, float]:
    """Heights of the centres of whole organs; those of the label file where it has them."""
    found: dict[int, float] = {}
    for source in (case.pseudo, case.drawn):
        for label, one in (source or {}).items():
            if label != TUMOR and one.is_whole_in_z:
                found[label] = one.centre_mm
    return found


def _offsets(cases: Sequence[Facts]) -> dict[tuple[int, int], Offset]:
    centres: NDArray[np.float64] = np.full((len(cases), TUMOR), np.nan)
    for row, case in enumerate(cases):
        for label, centre in centres_mm(case).items():
            centres[row, label] = centre
    found = {}
    for first in ORGANS:
        for second in ORGANS:
            apart = centres[:, second] - centres[:, first]
            apart = apart[np.isfinite(apart)]
            if first != second and apart.size >= LEAST_PAIRS:
                middle = float(np.median(apart))
                spread = _SD_OF_MAD * float(np.median(np.abs(apart - middle)))
                found[first, second] = Offset(apart.size, middle, spread)
    return found


def _typical(volumes_ml: Iterable[float]) -> Typical:
    logs = np.log(list(volumes_ml))
    middle = float(np.median(logs))
    spread = max(_SD_OF_MAD * float(np.median(np.abs(logs - middle))), LEAST_SPREAD)
    low, median, high = (float(np.exp(middle + far * spread)) for far in (-FAR, 0, FAR))
    return Typical(logs.size, round(median, 3), round(low, 3), round(high, 3))
