"""A cohort in tables: Table 1's counts, and what label files lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from flarekd.cohort import Case
from flarekd.evidence import Evidence, Verdict
from flarekd.groups_file import Rules
from flarekd.labels import BY_ID, LABELS, ORGANS

COHORT_COLUMNS = ("annotated", "cases", *(label.short for label in LABELS))
LACKING_COLUMNS = ("", *(BY_ID[label].short for label in ORGANS))


def cohort_rows(cases: Sequence[tuple[Case, str]], rules: Rules) -> list[list[str]]:
    """The counts as Table 1 gives them.

    A case that is no group exactly counts in a line of its own, or in its data set's.

    Args:
        cases: Each with the name of the data set that vouches for its label file, or nothing.
        rules: The groups, and the data sets.
    """
    counts = Counter(_row_of(case, dataset, rules) for case, dataset in cases)
    rows = [
        [name, str(counts[name]), *_ticks(ids)]
        for group, ids in rules.groups.items()
        for name in [f"group {group}"]
    ]
    for name, ids in {_of(one.name): one.annotated for one in rules.datasets}.items():
        if counts[name]:
            rows.append([name, str(counts[name]), *_ticks(ids)])
    empty = [""] * len(LABELS)
    rows.extend([name, str(counts[name]), *empty] for name in ("no exact group", "unlabelled"))
    return [*rows, ["total", str(len(cases)), *empty]]


class Lacking:
    """How many labelled cases lack an organ, by reason; and how many have an unusual volume."""

    def __init__(self) -> None:
        self._lacking: Counter[tuple[str, int]] = Counter()
        self._unusual: Counter[int] = Counter()

    def add(self, evidence: Evidence) -> None:
        """Count a case."""
        self._lacking.update((one.verdict, one.label) for one in evidence.lacking)
        self._unusual.update({one.label for one in evidence.outliers})

    def rows(self) -> list[list[str]]:
        """A row a reason, those that no case has left out."""
        rows = [
            [str(verdict), *(str(self._lacking[verdict, label] or "") for label in ORGANS)]
            for verdict in get_args(Verdict)
        ]
        rows.append(["unusual volume", *(str(self._unusual[label] or "") for label in ORGANS)])
        return [row for row in rows if any(row[1:])]


def _row_of(case: Case, dataset: str, rules: Rules) -> str:
    if case.label is None:
        return "unlabelled"
    if case.group is not None and case.annotated == rules.groups[case.group]:
        return f"group {case.group}"
    return _of(dataset) if dataset else "no exact group"


def _of(dataset: str) -> str:
    return f"data set {dataset}"


def _ticks(ids: frozenset[int]) -> list[str]:
    return ["✓" if label.id in ids else "" for label in LABELS]
