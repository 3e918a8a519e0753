"""How sure means over cases are, and whether two models differ (pure).

Cases are what is drawn anew in the bootstrap and what is paired in the comparison: the classes of
one case are not independent of one another.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.labels import LABELS, NAMES, ORGANS, TUMOR
from flarekd.metrics.protocols import ClassScore

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0

SCORES: tuple[str, ...] = ("dsc", "nsd")

Scores = Mapping[str, Sequence[ClassScore]]
"""The scores of each case."""

Floats = NDArray[np.float64]

_COLUMNS = len(LABELS) + 2
"""The classes, the mean of a case's organs, the mean of its classes."""


def intervals(cases: Scores) -> dict[str, Any]:
    """Confidence intervals of the means of ``summarize``, by the bootstrap over cases.

    Cases are drawn with replacement ``RESAMPLES`` times by a generator of seed ``SEED``; the bounds
    are percentiles of the means.

    Args:
        cases: The scores of each case, all classes.

    Returns:
        Shaped as ``summarize`` shapes its means, with ``(low, high)`` for ``dsc`` and ``nsd``. NaN
        where fewer than two cases have a score, for one case says nothing of others.
    """
    entries: list[dict[str, tuple[float, float]]] = [{} for _ in range(_COLUMNS)]
    for key in SCORES:
        scores = _matrix(cases, key)
        counts = np.isfinite(_with_means(scores)).sum(axis=0)
        means = _with_means(_resampled(scores))
        for entry, mean, count in zip(entries, means.T, counts, strict=True):
            entry[key] = _bounds(mean) if count > 1 else (math.nan, math.nan)
    return _shaped(entries)


def deviations(cases: Scores) -> dict[str, Any]:
    """How far cases lie apart: standard deviations over cases, as Table 5 has them.

    Args:
        cases: The scores of each case, all classes.

    Returns:
        Shaped as ``summarize`` shapes its means, with the sample's standard deviation (n - 1) of
        ``dsc`` and ``nsd``; those of ``organs`` and ``all`` are of the means of each case. NaN
        where fewer than two cases have a score.
    """
    entries: list[dict[str, float]] = [{} for _ in range(_COLUMNS)]
    for key in SCORES:
        for entry, column in zip(entries, _with_means(_matrix(cases, key)).T, strict=True):
            known = column[np.isfinite(column)]
            entry[key] = float(known.std(ddof=1)) if len(known) > 1 else math.nan
    return _shaped(entries)


def case_means(cases: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """What the cases have one by one: ``{case: {"organs": {"dsc", "nsd"}, "tumor": …, "all": …}}``.

    NaN where there is nothing to average.
    """
    means: dict[str, dict[str, dict[str, float]]] = {
        case: {"organs": {}, "tumor": {}, "all": {}} for case in cases
    }
    for key in SCORES:
        matrix = _with_means(_matrix(cases, key))
        for entry, (tumor, organs, every) in zip(means.values(), matrix[:, -3:], strict=True):
            for name, value in (("organs", organs), ("tumor", tumor), ("all", every)):
                entry[name][key] = float(value)
    return means


def compare(ours: Scores, theirs: Scores) -> dict[str, Any]:
    """Compare two models on the cases that both have scores of.

    For each class, the mean of a case's organs and that of all its classes, and for DSC and NSD:
    the mean difference with its bootstrap interval; the two-sided Wilcoxon signed-rank test (equal
    pairs are left out, and the p is 1 where all are equal); the same after Holm's correction for
    the 14 classes; and as effect size the rank-biserial correlation, +1 where every case is better
    in `ours`, -1 where every one is worse, 0 where the ranks balance.

    Args:
        ours: The scores of each case, all classes.
        theirs: Those of the other model.

    Returns:
        ``{"cases": n, "classes": {name: {"dsc": …, "nsd": …}}, "organs": …, "tumor": …, "all": …}``
        with ``{"cases", "difference", "low", "high", "effect", "p"}`` of each, and ``p_holm`` of
        the classes; ``difference`` is ours - theirs. NaN where there is nothing to tell.
    """
    common = sorted(ours.keys() & theirs.keys())
    entries: list[dict[str, dict[str, float]]] = [{} for _ in range(_COLUMNS)]
    for key in SCORES:
        mine, other = (
            _with_means(_matrix({case: scores[case] for case in common}, key))
            for scores in (ours, theirs)
        )
        for entry, pairs in zip(entries, (mine - other).T, strict=True):
            entry[key] = paired(pairs[np.isfinite(pairs)])
        corrected = holm([entry[key]["p"] for entry in entries[: len(LABELS)]])
        for entry, p in zip(entries, corrected, strict=False):
            entry[key]["p_holm"] = p
    return {"cases": len(common), **_shaped(entries)}


def paired(differences: Floats) -> dict[str, float]:
    """Whether paired differences lie about zero.

    Args:
        differences: float64 (cases,), finite.

    Returns:
        As ``compare`` describes it, without ``p_holm``.
    """
    low, high = math.nan, math.nan
    if len(differences) > 1:
        low, high = _bounds(_resampled(differences[:, None])[:, 0])
    p, effect = signed_ranks(differences)
    mean = float(differences.mean()) if len(differences) else math.nan
    return {
        "cases": len(differences), "difference": mean, "low": low, "high": high,
        "effect": effect, "p": p,
    }  # fmt: skip


def signed_ranks(differences: Floats) -> tuple[float, float]:
    """Wilcoxon's two-sided p and the rank-biserial correlation; NaN of no differences at all.

    The p is exact for at most 50 pairs without ties, else that of the normal approximation.
    """
    # loads half a second's worth of scipy, which scoring alone does without
    from scipy.stats import rankdata, wilcoxon

    if not len(differences):
        return math.nan, math.nan
    # scores are rounded to 4 digits or none: what is left of a difference of equals is no order
    signed = differences[np.abs(differences) > 1e-12]
    if not len(signed):
        return 1.0, 0.0
    ranks = rankdata(np.abs(signed).round(12))
    effect = float((ranks * np.sign(signed)).sum() / ranks.sum())
    with warnings.catch_warnings():
        # few pairs make the approximation coarse, which the number of cases beside it says
        warnings.simplefilter("ignore")
        p = float(wilcoxon(signed.round(12)).pvalue)
    return p, effect


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction of several p: the chance of one false alarm among all. NaN are not counted.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [math.nan] * len(ps)
    order = sorted((p, place) for place, p in enumerate(ps) if not math.isnan(p))
    worst = 0.0
    for rank, (p, place) in enumerate(order):
        worst = max(worst, min(1.0, p * (len(order) - rank)))
        adjusted[place] = worst
    return adjusted


def _matrix(cases: Scores, key: str) -> Floats:
    """The scores as float64 (cases, 14), NaN where there is none."""
    matrix = np.full((len(cases), len(LABELS)), math.nan)
    for row, records in zip(matrix, cases.values(), strict=True):
        for record in records:
            row[record.label - 1] = getattr(record, key)
    return matrix


def _with_means(scores: Floats) -> Floats:
    """Two columns more: the mean of the organs and that of all classes, NaN left out."""
    organs = scores[:, [label - 1 for label in ORGANS]]
    means = [
        _quotient(np.where(np.isfinite(some), some, 0.0).sum(axis=1), np.isfinite(some).sum(axis=1))
        for some in (organs, scores)
    ]
    return np.column_stack([scores, *means])


def _shaped(entries: Sequence[Any]) -> dict[str, Any]:
    """Entries of such columns, shaped as ``summarize`` shapes its means."""
    classes = dict(zip(NAMES[1:], entries, strict=False))
    return {
        "classes": classes,
        "organs": entries[-2],
        "tumor": classes[NAMES[TUMOR]],
        "all": entries[-1],
    }


def _resampled(scores: Floats) -> Floats:
    """Means of columns over cases drawn anew, float64 (``RESAMPLES``, columns); NaN left out."""
    cases = len(scores)
    if not cases:
        return np.full((RESAMPLES, scores.shape[1]), math.nan)
    times = np.random.default_rng(SEED).multinomial(cases, np.full(cases, 1 / cases), RESAMPLES)
    known = np.isfinite(scores)
    return _quotient(
        (times @ np.where(known, scores, 0.0)).astype(np.float64), times @ known.astype(np.int64)
    )


def _quotient(sums: Floats, counts: NDArray[np.integer[Any]]) -> Floats:
    """Sums over counts, NaN where nothing was counted."""
    means = np.full_like(sums, math.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _bounds(means: Floats) -> tuple[float, float]:
    """The percentiles between which ``LEVEL`` of the resampled means lie."""
    known = means[np.isfinite(means)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
