"""Which annotation group of Table 1 a partially labelled case belongs to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from flarekd.labels import BY_ID, GROUPS

ANATOMICAL: dict[int, tuple[int, ...]] = {2: (13,), 5: (13,), 6: (9,)}
"""Groups that may be a fuller group in a patient without the organ (method.md §1.2).

Nephrectomy, cholecystectomy.
"""


@dataclass(frozen=True)
class Assignment:
    """What grouping says of one label file.

    Attributes:
        group: Group 1..7, or None where no group holds all the ids present.
        annotated: λ, the ids the file vouches for: those present.
        exact: Whether the ids present are a group's set exactly.
        note: What a person should know, empty where there is nothing.
    """

    group: int | None
    annotated: tuple[int, ...]
    exact: bool
    note: str


def assign_group(present: Collection[int]) -> Assignment:
    """Assign a case to the group of Table 1 whose annotated set is exactly the ids present.

    A set that is no group's gets the smallest group that holds all of it, as a proposal with a
    note. `annotated` stays the set present in any case: a label file cannot tell an organ that was
    not annotated from one that is absent or outside the scan, and trusting only what was drawn lets
    fusion fill the rest from pseudo-labels.

    Args:
        present: The unique nonzero ids of the label file, each in 1..14.

    Returns:
        The assignment.

    Raises:
        ValueError: If an id is not a class.
    """
    ids = frozenset(present)
    unknown = sorted(ids - set(BY_ID))
    if unknown:
        message = f"label ids {unknown} are not among 1..14"
        raise ValueError(message)
    annotated = tuple(sorted(ids))
    for group, wanted in GROUPS.items():
        if ids == wanted:
            return Assignment(group, annotated, True, _ambiguity(group))
    if not ids:
        return Assignment(None, annotated, False, "label file is empty: treated as unlabelled")
    holding = [group for group, wanted in GROUPS.items() if ids < wanted]
    if not holding:
        # only an unusual mixture, such as tumour plus all organs
        return Assignment(None, annotated, False, "ids match no group of Table 1")
    group = min(holding, key=lambda candidate: len(GROUPS[candidate]))
    lacking = ", ".join(BY_ID[label].name for label in sorted(GROUPS[group] - ids))
    note = (
        f"no exact group; nearest is {group}, without {lacking} (absent, cut off or not annotated)"
    )
    return Assignment(group, annotated, False, note)


def _ambiguity(group: int) -> str:
    names = ", ".join(BY_ID[label].name for label in ANATOMICAL.get(group, ()))
    return f"{names} absent or not annotated? taken as not annotated" if names else ""
