"""What data sets vouch for, against what their label files hold.

A data set whose every case has all its classes annotated vouches for those that a file lacks: the
patient has none. Said of one that is only partly annotated, it teaches that organs nobody drew are
not there.
"""

from __future__ import annotations

from collections import Counter

from flarekd.grouping import names
from flarekd.norms import Facts

FEW = 0.5
"""Share of a data set's label files; a class that fewer hold may not be annotated in all."""

LEAST_FILES = 4
"""So many label files must a data set have before their share says something."""


class Vouching:
    """Counts, of each data set, label files and those that hold a class it vouches for."""

    def __init__(self) -> None:
        self._files: Counter[str] = Counter()
        self._vouched: dict[str, frozenset[int]] = {}
        self._held: Counter[tuple[str, int]] = Counter()

    def add(self, case: Facts) -> None:
        """Count a case; one that no data set vouches for does not count."""
        if case.drawn is None or not case.dataset:
            return
        self._files[case.dataset] += 1
        self._vouched[case.dataset] = case.vouched
        self._held.update((case.dataset, label) for label in case.vouched & case.drawn.keys())

    def doubts(self) -> list[str]:
        """A sentence for each data set that vouches for classes which few of its files hold."""
        told = []
        for dataset, files in self._files.items():
            rare = frozenset(
                label
                for label in self._vouched[dataset]
                if files >= LEAST_FILES and self._held[dataset, label] < FEW * files
            )
            if rare:
                least = min(self._held[dataset, label] for label in rare)
                most = max(self._held[dataset, label] for label in rare)
                held = f"{least}" if least == most else f"{least} to {most}"
                told.append(
                    f"data set {dataset!r} counts as annotated with {names(sorted(rare))} in all "
                    f"{files} cases, of which {held} hold it · where not every case was looked "
                    "through for it, write `annotated: present` in groups.yaml"
                )
        return told
