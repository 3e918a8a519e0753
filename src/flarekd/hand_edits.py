"""What a person changed in cohort.csv since ``group-data`` wrote it: a re-run keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.cohort import Case, read_cohort
from flarekd.errors import counted

WRITTEN_SPLIT = "train"
"""What ``group-data`` writes of every case; held-out cases are a person's choice."""


def hand_edits(table: Path, grouping: Path) -> dict[str, dict[str, Any]]:
    """The cells ``split`` and ``annotated`` that are not as they were written.

    Args:
        table: cohort.csv; none are changed where there is none.
        grouping: grouping.json, which was written with it and says what ``annotated`` was.

    Returns:
        Case → column → what a person wrote.

    Raises:
        InputError: If the table cannot be read.
    """
    if not table.exists():
        return {}
    _, written = _read(grouping)
    found: dict[str, dict[str, Any]] = {}
    for case in read_cohort(table):
        changed: dict[str, Any] = {}
        if case.split != WRITTEN_SPLIT:
            changed["split"] = case.split
        if case.case in written and case.annotated != written[case.case]:
            changed["annotated"] = case.annotated
        if changed:
            found[case.case] = changed
    return found


def was_written_with(table: Path, grouping: Path) -> bool:
    """Whether grouping.json is of this table, not of another in its folder: it has all its cases.

    Raises:
        InputError: If the table cannot be read.
    """
    if not table.exists():
        return grouping.exists()
    whole, written = _read(grouping)
    is_named = whole.get("table", table.name) == table.name  # earlier versions name none
    return is_named and {case.case for case in read_cohort(table)} <= written.keys()


def left_out(table: Path, grouping: Path) -> list[str]:
    """The cases that could not be used when the table was written, and that nobody has added since.

    Raises:
        InputError: If the table cannot be read.
    """
    try:
        refused = {str(one["case"]) for one in _read(grouping)[0].get("refused", ())}
    except (KeyError, TypeError):
        refused = set()
    return sorted(refused - {case.case for case in read_cohort(table)})


def edited(case: Case, edits: Mapping[str, Mapping[str, Any]]) -> Case:
    """The case with what a person wrote of it; nothing is annotated where no label file is left."""
    changed = dict(edits.get(case.case, {}))
    if case.label is None:
        changed.pop("annotated", None)
    return replace(case, **changed)


def tell_edits(edits: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence about what is kept."""
    columns = sorted({column for changed in edits.values() for column in changed})
    first = min(edits)
    return (
        f"kept what a person changed in cohort.csv: {' and '.join(columns)} of "
        f"{counted(edits, 'case')}, such as {first} · delete the file to have it written anew"
    )


def _read(grouping: Path) -> tuple[dict[str, Any], dict[str, frozenset[int]]]:
    """grouping.json, and of each case what ``annotated`` was; empty where it cannot be read."""
    try:
        whole = plain_json.read(grouping)
        cases = whole["cases"]
        return whole, {one["case"]: frozenset(one.get("annotated", ())) for one in cases}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}
