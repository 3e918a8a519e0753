"""What the masks of a data set are, by the names of their files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flarekd.errors import InputError, counted, listed
from flarekd.foreign import classes_of, our_id
from flarekd.groups_file import Dataset, is_foreign

MOST_TOLD = 200
"""Names told in an error, and in a note: a note is where a slip among them can be seen."""


def with_masks(dataset: Dataset, names: set[str]) -> tuple[Dataset, str]:
    """The data set with what the names of its masks are, and which of them are background."""
    known = {name: dataset.masks.get(name, None) for name in sorted(names)}
    foreign = [name for name, ours in known.items() if ours is None and is_foreign(name)]
    if foreign and not dataset.ignores_rest:
        raise InputError(
            f"groups.yaml: masks of data set {dataset.name!r} are none of our classes: "
            f"{listed(foreign)}",
            "write `others: background`, or under ids: what each is",
        )
    lost = sorted(dataset.masks.keys() - names)
    if lost:
        raise InputError(
            f"groups.yaml: data set {dataset.name!r} has no mask {lost[0]!r}; there are "
            f"{listed(sorted(names))}",
            "masks are called as their files are, without the ending",
        )
    masks = {
        n: our_id(n) if ours is None else ours for n, ours in known.items() if n not in foreign
    }
    vouched = dataset.annotated
    if not vouched and not dataset.is_partly:
        vouched = classes_of(masks.values())
    return replace(dataset, masks=masks, annotated=vouched), tell_others(dataset, foreign)


def tell_others(dataset: Dataset, names: Sequence[str]) -> str:
    """A sentence about names that are background, among which one may be spelt wrongly."""
    if not names:
        return ""
    told = f"data set {dataset.name!r}: {counted(names, 'other name')}, taken as background: "
    return told + listed(names, MOST_TOLD)
