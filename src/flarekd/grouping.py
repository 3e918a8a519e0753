"""Which annotation group of Table 1 a partially labelled case belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flarekd.labels import BY_ID, GROUPS, ORGANS

NEVER_REMOVED = frozenset({1, 5, 6})
"""Liver, aorta and IVC: who lacks one lives without the scan."""

REMOVABLE = frozenset(ORGANS) - NEVER_REMOVED
"""Organs that a patient may be without (nephrectomy, cholecystectomy; method.md §1.2)."""


@dataclass(frozen=True)
class Assignment:
    """What grouping says of one label file.

    Attributes:
        group: Group 1..7 or one of the user's, None where no group holds all the ids present.
        annotated: λ, the ids the file vouches for: those present.
        exact: Whether the ids present are a group's set exactly.
        doubtful: Ids that a patient may lack or nobody may have annotated: those of the nearest
            group that are not there, or, of an exact group, an organ with which the case would be
            in a fuller one (groups 2, 5 and 6 of Table 1).
        note: What a person should know, empty where there is nothing.
    """

    group: int | None
    annotated: tuple[int, ...]
    exact: bool
    doubtful: tuple[int, ...]
    note: str


def assign_group(
    present: Collection[int], groups: Mapping[int, frozenset[int]] = GROUPS
) -> Assignment:
    """Assign a case to the group whose annotated set is exactly the ids present.

    A set that is no group's gets the smallest group that holds all of it, as a proposal with a
    note. `annotated` stays the set present in any case: a label file cannot tell an organ that was
    not annotated from one that is absent or outside the scan, and trusting only what was drawn lets
    fusion fill the rest from pseudo-labels.

    Args:
        present: The unique nonzero ids of the label file, each in 1..14.
        groups: Table 1, or a user's own; of several that hold the set the first smallest is taken.

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
    for group, wanted in groups.items():
        if ids == wanted:
            doubtful = _separating(ids, groups)
            return Assignment(group, annotated, True, doubtful, _ambiguity(doubtful))
    if not ids:
        return Assignment(None, annotated, False, (), "label file is empty: treated as unlabelled")
    holding = [group for group, wanted in groups.items() if ids < wanted]
    if not holding:
        # only an unusual mixture, such as tumour plus all organs
        lacking = tuple(sorted(set(ORGANS) - ids))
        return Assignment(None, annotated, False, lacking, "ids match no group, nor part of one")
    group = min(holding, key=lambda candidate: len(groups[candidate]))
    lacking = tuple(sorted(groups[group] - ids))
    note = (
        f"no exact group; nearest is {group}, without {names(lacking)} "
        "(absent, cut off or not annotated)"
    )
    return Assignment(group, annotated, False, lacking, note)


def names(ids: Collection[int]) -> str:
    """Names of classes, as they are told."""
    return ", ".join(BY_ID[label].name for label in ids)


def _separating(ids: frozenset[int], groups: Mapping[int, frozenset[int]]) -> tuple[int, ...]:
    """The organs each of which alone separates a set from a fuller group."""
    fuller = set(groups.values())
    return tuple(label for label in sorted(REMOVABLE - ids) if ids | {label} in fuller)


def _ambiguity(doubtful: tuple[int, ...]) -> str:
    told = "absent or not annotated? taken as not annotated"
    return f"{names(doubtful)} {told}" if doubtful else ""
