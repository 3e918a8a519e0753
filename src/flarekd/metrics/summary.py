"""What scores.json holds, of the scores and tumours of all cases (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flarekd.metrics.lesions import Lesion, detection
from flarekd.metrics.protocols import ClassScore, summarize
from flarekd.metrics.statistics import LEVEL, RESAMPLES, SEED, Scores, deviations, intervals


def summary_of(
    scores: Scores,
    lesions: Mapping[str, Sequence[Lesion]],
    errors: Mapping[str, str],
    protocol: str,
    traits: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """Means, how sure they are, tumours one by one, and what failed.

    Args:
        scores: The scores of each case, all classes.
        lesions: The lesions of each case.
        errors: Why cases failed.
        protocol: How they were scored.
        traits: Values by case of each trait to break the means down by.

    Returns:
        What docs/evaluate.md says of ``scores.json``, NaN where there is nothing to average.
    """
    summary = {
        "protocol": protocol,
        **_means(scores, protocol),
        "deviations": deviations(scores),
        "cases": len(scores),
        "failed": list(errors),
        "errors": dict(errors),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, **intervals(scores)},
        "lesions": detection(lesions),
    }
    if traits:
        summary["breakdowns"] = {
            trait: _breakdown(scores, values, protocol) for trait, values in traits.items()
        }
    return summary


def _breakdown(scores: Scores, values: Mapping[str, str], protocol: str) -> dict[str, Any]:
    """The means of the cases with each value of a trait; those it does not name are unknown."""
    parts: dict[str, dict[str, Sequence[ClassScore]]] = {}
    for case, records in scores.items():
        parts.setdefault(values.get(case, "unknown"), {})[case] = records
    return {
        value: {"cases": len(part), **_means(part, protocol)}
        for value, part in sorted(parts.items())
    }


def _means(scores: Scores, protocol: str) -> dict[str, Any]:
    return summarize((record for records in scores.values() for record in records), protocol)
