"""What is usual of the label maps of a cohort, and how far a case is from it.

Arithmetic on what was measured of each case and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from flarekd.appearance import Look, Mass, Measured
from flarekd.evidence import INSIDE, expected
from flarekd.labels import IDS, ORGANS, TUMOR
from flarekd.norms import FAR, Facts, Norms, Typical, Usual, learn, usual

LEAST_TUMOR_ML = 0.2
"""Smaller tumours are a few voxels, of which nothing can be said."""

LEAST_ORGANS = 4
"""Fewer organs do not tell a map that lies off its scan from an odd organ."""

LEAST_MEAN_HU, LEAST_LOG_SD = 5.0, 0.1
"""Least robust deviations: of a mean, and of the logarithm of a standard deviation."""

MOST_OFF = 8.0
"""Robust deviations of one organ that count for the map as a whole: one odd organ is no shift."""

LEAST_SHIFT = 0.3
"""Least robust deviation of what `off` says."""

LEAST_CONTRAST = 0.05
"""A tumour whose border is fainter than this has none."""

LEAST_OF_TUMORS = {
    "mean_hu": LEAST_MEAN_HU,
    "log_sd": LEAST_LOG_SD,
    "log_contrast": 0.3,
    "organ_mm": 3.0,
}
"""Least robust deviations of a tumour's figures."""


@dataclass(frozen=True)
class Subject:
    """One case and what is known beside its label map.

    Attributes:
        measured: Of the label map and the scan.
        conflict: Volume in which an organ pseudo-label contradicts what a person drew, as a share
            of the latter; None where that is not known.
        has_drawn_tumors: Whether a person annotated its tumours: what is usual of tumours is
            learnt from such cases where there are enough.
    """

    measured: Measured
    conflict: float | None = None
    has_drawn_tumors: bool = False


@dataclass(frozen=True)
class Usuals:
    """What is usual in the cohort.

    Attributes:
        norms: Volumes, and how far organs lie above one another.
        mean_hu: By organ.
        log_sd: By organ, of the logarithm of the standard deviation.
        shift: Of what `off` says of each case.
        lacking: By organ, the share of the scans that should show it and whose labels lack it.
        in_pieces: By organ, the share of the cases with it that have it in big pieces.
        tumors: By figure of a tumour (`figures`).
    """

    norms: Norms
    mean_hu: Mapping[int, Usual]
    log_sd: Mapping[int, Usual]
    shift: Usual | None
    lacking: Mapping[int, float]
    in_pieces: Mapping[int, float]
    tumors: Mapping[str, Usual]


Absent = dict[int, str]
"""Organs that are not there though the scan should show them, and why it should."""


def learn_usuals(cohort: Mapping[str, Subject]) -> tuple[Usuals, dict[str, Absent]]:
    """Learn what is usual, and which organs each case lacks though its scan should show them.

    Args:
        cohort: Case to what is known of it.
    """
    facts = {case: _facts(case, subject.measured) for case, subject in cohort.items()}
    norms = learn(facts.values())
    absent = {case: _absent(facts[case], norms) for case in cohort}
    looks: dict[int, list[Look]] = {label: [] for label in ORGANS}
    for subject in cohort.values():
        for name, one in subject.measured.looks.items():
            looks.setdefault(IDS[name], []).append(one)
    mean_hu, log_sd = (
        _known({i: usual([of(one) for one in s], least, of_mixture=True) for i, s in looks.items()})
        for of, least in ((_mean_hu, LEAST_MEAN_HU), (_log_sd, LEAST_LOG_SD))
    )
    shifts = [off(subject.measured, mean_hu, log_sd) for subject in cohort.values()]
    lacks = [label for gone in absent.values() for label in gone]
    lacking = {i: lacks.count(i) / (lacks.count(i) + len(looks[i])) for i in set(lacks)}
    shift = usual([one for one in shifts if one is not None], LEAST_SHIFT)
    broken = [IDS[name] for subject in cohort.values() for name in subject.measured.pieces]
    in_pieces = {i: broken.count(i) / len(looks[i]) for i in set(broken)}
    tumors = _usual_tumors(cohort.values())
    return Usuals(norms, mean_hu, log_sd, shift, lacking, in_pieces, tumors), absent


def look_deviations(label: int, one: Look, known: Usuals) -> tuple[float, float]:
    """How far an organ's mean HU, and how far above it its standard deviation, are from the usual.

    Returns:
        Robust deviations of both, 0 where too few cases have the organ.
    """
    if label not in known.mean_hu:
        return 0.0, 0.0
    return known.mean_hu[label].deviation(one.mean_hu), known.log_sd[label].deviation(_log_sd(one))


def off(
    measured: Measured, mean_hu: Mapping[int, Usual], log_sd: Mapping[int, Usual]
) -> float | None:
    """How much more the HU inside the organs spread, and how much lower they are, than usual.

    An organ that lies where it should is one tissue; a map that lies off its scan takes in the fat
    and the air beside each.

    Args:
        measured: Of the case.
        mean_hu: As in `Usuals`.
        log_sd: As in `Usuals`.

    Returns:
        The mean over the organs of both deviations, each no more than `MOST_OFF`; None with fewer
        than `LEAST_ORGANS` organs.
    """
    deviations = [
        min(log_sd[label].deviation(_log_sd(one)), MOST_OFF)
        + min(-mean_hu[label].deviation(one.mean_hu), MOST_OFF)
        for name, one in measured.looks.items()
        if (label := IDS[name]) in log_sd and label != TUMOR
    ]
    return float(np.mean(deviations)) if len(deviations) >= LEAST_ORGANS else None


def volume_deviation(ml: float, typical: Typical) -> float:
    """How many robust deviations the logarithm of a volume is off the typical one."""
    spread = math.log(typical.high_ml / typical.median_ml) / FAR
    return math.log(ml / typical.median_ml) / spread


def figures(mass: Mass) -> dict[str, float]:
    """The figures by which a tumour is compared with the others of the cohort."""
    return {
        "mean_hu": mass.mean_hu,
        "log_sd": math.log(max(mass.sd_hu, 1.0)),
        # as a logarithm: what lies between no border and the usual one is many times
        "log_contrast": math.log(max(mass.contrast, LEAST_CONTRAST)),
        "organ_mm": mass.organ_mm,
    }


def _facts(case: str, measured: Measured) -> Facts:
    drawn = {IDS[name]: one for name, one in measured.extents.items()}
    return Facts(case, measured.height_mm, drawn, None)


def _absent(facts: Facts, norms: Norms) -> Absent:
    absent = {}
    for label in sorted(set(ORGANS) - set(facts.drawn or {})):
        share, where = expected(label, facts, norms)
        if share is not None and share >= INSIDE:
            absent[label] = where
    return absent


def _mean_hu(one: Look) -> float:
    return one.mean_hu


def _log_sd(one: Look) -> float:
    return math.log(max(one.sd_hu, 1.0))


def _known(found: Mapping[int, Usual | None]) -> dict[int, Usual]:
    return {label: one for label, one in found.items() if one}


def _usual_tumors(cohort: Iterable[Subject]) -> dict[str, Usual]:
    """What is usual of tumours that people drew, of all where those are too few."""
    masses: dict[bool, list[Mass]] = {True: [], False: []}
    for subject in cohort:
        large = [mass for mass in subject.measured.masses if mass.ml >= LEAST_TUMOR_ML]
        masses[subject.has_drawn_tumors] += large
    for seen in (masses[True], [*masses[True], *masses[False]]):
        rows = [figures(mass) for mass in seen]
        found = {
            name: usual([row[name] for row in rows], least)
            for name, least in LEAST_OF_TUMORS.items()
        }
        if all(found.values()):
            return {name: one for name, one in found.items() if one}
    return {}
