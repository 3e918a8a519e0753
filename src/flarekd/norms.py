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
"""Fewer cases with an end of both organs say nothing of how far apart these lie."""

FAR = 3.5
"""Robust deviations of a volume beyond which it is unusual (a modified z-score, after Iglewicz and
Hoaglin 1993)."""

LEAST_SPREAD = 0.1
"""Least robust deviation of the logarithm of a volume: a cohort of like bodies tells no tenth."""

_SD_OF_MAD = 1.4826

_SD_OF_80 = 2.563
"""Standard deviations between the percentiles 10 and 90 of a normal distribution."""

Organs = Mapping[int, Extent]
End = tuple[int, str]
"""An organ, and which of its ends along z."""

LOWER, UPPER = "lower", "upper"
_ENDS: tuple[End, ...] = tuple((label, end) for label in ORGANS for end in (LOWER, UPPER))


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
class Usual:
    """What is usual of a number over the cohort: its median and its robust deviation."""

    cases: int
    median: float
    spread: float

    def deviation(self, value: float) -> float:
        """How many robust deviations a value lies above the median."""
        return (value - self.median) / self.spread


@dataclass(frozen=True)
class Typical:
    """Volumes of an organ over the cohort: the median, and where `FAR` deviations lie, ml."""

    cases: int
    median_ml: float
    low_ml: float
    high_ml: float


@dataclass(frozen=True)
class Offset:
    """How far an end of one organ lies above an end of another: median and robust deviation, mm."""

    cases: int
    mm: float
    spread_mm: float


@dataclass(frozen=True)
class Norms:
    """What is usual in the cohort.

    Attributes:
        volumes: By organ.
        offsets: By pair of ends of two organs, of the second above the first.
    """

    volumes: Mapping[int, Typical]
    offsets: Mapping[tuple[End, End], Offset]


def usual(
    values: Sequence[float], least_spread: float, *, of_mixture: bool = False
) -> Usual | None:
    """The median and robust deviation (of the median absolute one) of a number over cases.

    Args:
        values: One a case.
        least_spread: The deviation is never smaller.
        of_mixture: Whether it is that of the percentiles 10 and 90 where that is larger: in a fifth
            of a cohort the contrast medium may be missing, and they are none the odder for it.

    Returns:
        None where they are fewer than `LEAST_VOLUMES`.
    """
    if len(values) < LEAST_VOLUMES:
        return None
    middle, spread = _middle_and_spread(np.asarray(values))
    if of_mixture:
        low, high = np.percentile(values, (10, 90))
        spread = max(spread, float(high - low) / _SD_OF_80)
    return Usual(len(values), middle, max(spread, least_spread))


def learn(cases: Iterable[Facts]) -> Norms:
    """Learn what is usual of organs that are whole, and of ends that the scan reaches.

    Volumes are those of drawn organs, and of pseudo-labels where few are drawn.

    Args:
        cases: Gone through once; little is kept of each.
    """
    drawn: dict[int, list[float]] = {label: [] for label in ORGANS}
    guessed: dict[int, list[float]] = {label: [] for label in ORGANS}
    rows = []
    for case in cases:
        for source, volumes in ((case.drawn, drawn), (case.pseudo, guessed)):
            for label, one in (source or {}).items():
                if label != TUMOR and not one.cut_off:
                    volumes[label].append(one.ml)
        found = ends_mm(case)
        rows.append(np.asarray([found.get(end, np.nan) for end in _ENDS]))
    typical = {}
    for label in ORGANS:
        whole = drawn[label]
        if len(whole) < LEAST_VOLUMES:
            whole = whole + guessed[label]
        if len(whole) >= LEAST_VOLUMES:
            typical[label] = _typical(whole)
    return Norms(typical, _offsets(np.reshape(rows, (-1, len(_ENDS)))))


def ends_mm(case: Facts) -> dict[End, float]:
    """Where organs begin and end along z; of the label file where it has them.

    An organ that the scan cuts has still its other end.
    """
    found: dict[End, float] = {}
    for source in (case.pseudo, case.drawn):
        for label, one in (source or {}).items():
            if label != TUMOR and "feet" not in one.cut_off:
                found[label, LOWER] = one.low_mm
            if label != TUMOR and "head" not in one.cut_off:
                found[label, UPPER] = one.high_mm
    return found


def _offsets(places: NDArray[np.float64]) -> dict[tuple[End, End], Offset]:
    """Of the places of all ends, mm (cases, ends), NaN where they are not known."""
    offsets = {}
    for first, ours in zip(_ENDS, places.T, strict=True):
        for second, theirs in zip(_ENDS, places.T, strict=True):
            apart = theirs - ours
            apart = apart[np.isfinite(apart)]
            if first[0] != second[0] and apart.size >= LEAST_PAIRS:
                middle, spread = _middle_and_spread(apart)
                offsets[first, second] = Offset(apart.size, middle, spread)
    return offsets


def _typical(volumes_ml: list[float]) -> Typical:
    middle, spread = _middle_and_spread(np.log(volumes_ml))
    spread = max(spread, LEAST_SPREAD)
    low, median, high = (float(np.exp(middle + far * spread)) for far in (-FAR, 0, FAR))
    return Typical(len(volumes_ml), round(median, 3), round(low, 3), round(high, 3))


def _middle_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    middle = float(np.median(values))
    return middle, _SD_OF_MAD * float(np.median(np.abs(values - middle)))
