"""The rank table of FLARE: every model ranked in every case by every metric, then averaged (pure).

"Rank, then average": a model that is far ahead in one case gains one rank there and no more, and
the unit of a metric does not matter. Time counts above 15 s only and GPU memory above 4 GB only
(FLARE 2023 §3.1), so models within the tolerance share the first rank. The challenge has not
published its formula for that; this one takes the tolerance off case by case before ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekd.efficiency import SECONDS_ALLOWED

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """What models are ranked by.

    Attributes:
        name: As score files have it.
        title: As people read it.
        is_cost: Whether less is better.
        allowed: Of a cost, what is taken off before ranking.
    """

    name: str
    title: str
    is_cost: bool = False
    allowed: float = 0.0


METRICS: tuple[Metric, ...] = (
    Metric("organs_dsc", "organ DSC"),
    Metric("organs_nsd", "organ NSD"),
    Metric("tumor_dsc", "tumour DSC"),
    Metric("tumor_nsd", "tumour NSD"),
    Metric("seconds", "time, s", is_cost=True, allowed=SECONDS_ALLOWED),
    # the area above 4 GB: what is allowed was taken off at every moment already
    Metric("gpu_area_over_mb_s", "GPU area above 4 GB, MB·s", is_cost=True),
)


@dataclass(frozen=True)
class Standing:
    """One model in the rank table.

    Attributes:
        model: Its name.
        place: 1 for the best; equals share a place.
        rank: Mean of its ranks over all cases and metrics.
        ranks: Mean over the cases by metric name.
    """

    model: str
    place: int
    rank: float
    ranks: Mapping[str, float]


def rank_models(values: Floats, metric: Metric) -> Floats:
    """Rank models within each case.

    Args:
        values: float64 (models, cases), NaN where a model failed.
        metric: What they are values of.

    Returns:
        float64 (models, cases): 1 for the best, and 1 more for every model that is better. Equals
        share the better rank; failures share the last one.

    >>> scores = np.array([[0.9, 0.5], [0.8, 0.5], [0.9, np.nan]])
    >>> rank_models(scores, Metric("dsc", "DSC"))
    array([[1., 1.],
           [3., 1.],
           [1., 3.]])
    """
    costs = np.maximum(values - metric.allowed, 0.0) if metric.is_cost else -values
    costs = np.where(np.isnan(costs), np.inf, costs)
    better = costs[None, :, :] < costs[:, None, :]
    return np.asarray(1.0 + better.sum(axis=1))


def standings(models: list[str], ranks: Mapping[str, Floats]) -> list[Standing]:
    """Average ranks to the final table.

    Args:
        models: Their names.
        ranks: By metric name, as ``rank_models`` gives them; of the same cases.

    Returns:
        Best first; equals in the order of `models`.

    Raises:
        ValueError: If there are no ranks.
    """
    if not ranks or not all(rank.size for rank in ranks.values()):
        message = "no case or no metric to rank by"
        raise ValueError(message)
    means = np.stack([rank.mean(axis=1) for rank in ranks.values()])
    totals = means.mean(axis=0)
    # sums of the same ranks in another order differ by rounding, which makes no winner
    totals = totals.round(9)
    table = [
        Standing(
            model,
            place=1 + int((totals < totals[index]).sum()),
            rank=float(totals[index]),
            ranks=dict(zip(ranks, means[:, index].tolist(), strict=True)),
        )
        for index, model in enumerate(models)
    ]
    return sorted(table, key=lambda standing: standing.place)
