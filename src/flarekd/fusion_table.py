"""The tables about pseudo-labels and fusion: a row a case, a component, or what was left out.

``quality.csv`` and ``components.csv`` lie beside tumour pseudo-labels, the former beside organ
pseudo-labels too; ``fusion.csv`` and ``dropped.csv`` beside fused labels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flarekd.cohort import Case
from flarekd.errors import InputError, said
from flarekd.fusion_checks import Facts, flags
from flarekd.labels import LABELS, NAMES, ORGANS
from flarekd.selection import CASE_FIGURES, COMPONENT_FIGURES, ORGAN_FIGURES, Dropped
from flarekd.tables import plain

QUALITY, COMPONENTS = "quality.csv", "components.csv"
FUSION, DROPPED = "fusion.csv", "dropped.csv"

QUALITY_COLUMNS = ("case", "group", *CASE_FIGURES)
ORGAN_QUALITY_COLUMNS = ("case", "group", *ORGAN_FIGURES)
COMPONENT_COLUMNS = ("case", "component", "voxels", *COMPONENT_FIGURES, "organ")
DROPPED_COLUMNS = ("case", "component", "volume_ml", "rule", "value")
FUSION_COLUMNS = (
    "case", "group", "checks", "flags", "dropped", "voxel_ml",
    "organ_against_human_ml", "tumor_over_human_ml", "tumor_over_pseudo_ml", "ignored_ml",
    "unvouched_ml",
    *(f"{NAMES[organ]}_{what}_ml" for organ in ORGANS for what in ("conflict", "under_tumor")),
    *(f"{label.name}_{source}{unit}" for label in LABELS
      for source in ("human", "pseudo") for unit in ("", "_ml")),
)  # fmt: skip
"""``liver_human`` are voxels, ``liver_human_ml`` their volume; ``checks`` counts the flags."""

_VOLUMES = (
    "organ_against_human_ml",
    *(f"{label.name}_{source}_ml" for label in LABELS for source in ("human", "pseudo")),
)
"""Of them, those that review goes by."""

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Sources:
    """What fusion says of a case.

    Attributes:
        human_ml: Volume of each class that a person drew, by name; classes without left out.
        pseudo_ml: Volume of each that comes from a pseudo-label, likewise.
        conflict: Volume in which the organ pseudo-label contradicts what a person drew, as a share
            of that; None where nobody drew anything.
        flags: What fusion found worth a look, in words.
        dropped: What was left out, in words.
    """

    human_ml: dict[str, float]
    pseudo_ml: dict[str, float]
    conflict: float | None
    flags: str
    dropped: str


def fusion_row(
    case: Case, facts: Facts | None, unlike: Sequence[str], dropped: Sequence[Dropped]
) -> dict[str, Any]:
    """The row of one case in ``fusion.csv``.

    Args:
        case: Of the cohort.
        facts: None where the whole case was dropped.
        unlike: What ``fusion_checks.outliers`` says of it.
        dropped: What of it was left out.
    """
    row: dict[str, Any] = {
        "case": case.case,
        "group": case.group,
        "dropped": "; ".join(map(_told, dropped)),
    }
    if facts is None:
        return row
    found = flags(facts, unlike)
    row |= {"checks": len(found), "flags": "; ".join(found), "voxel_ml": f"{facts.voxel_ml:.6g}"}
    for name in (
        "organ_against_human", "tumor_over_human", "tumor_over_pseudo", "ignored", "unvouched",
    ):  # fmt: skip
        row[f"{name}_ml"] = _ml(getattr(facts, name), facts)
    for organ in ORGANS:
        name = NAMES[organ]
        row[f"{name}_conflict_ml"] = _ml(facts.conflicts.get(name, 0), facts)
        row[f"{name}_under_tumor_ml"] = _ml(facts.under_tumor.get(name, 0), facts)
    for label in LABELS:
        for source, voxels in (("human", facts.human), ("pseudo", facts.pseudo)):
            count = voxels.get(label.name, 0)
            row[f"{label.name}_{source}"] = count
            row[f"{label.name}_{source}_ml"] = _ml(count, facts)
    return row


def dropped_rows(dropped: Iterable[Dropped]) -> list[dict[str, Any]]:
    """The rows of ``dropped.csv``."""
    return [asdict(one) for one in dropped]


def read_quality(folder: Path) -> tuple[dict[str, Figures], dict[str, dict[int, Figures]]]:
    """Read the figures that lie beside tumour pseudo-labels.

    Returns:
        Case to figures, and case to component number to figures (``voxels`` among them).

    Raises:
        InputError: If they are not there or are no such tables.
    """
    cases = {row["case"]: _figures(row, CASE_FIGURES) for row in _read(folder / QUALITY, "case")}
    components: dict[str, dict[int, Figures]] = {case: {} for case in cases}
    path = folder / COMPONENTS
    for row in _read(path, "case", "component", "voxels"):
        try:
            number = int(row["component"])
        except ValueError:
            raise InputError(f"{path}: component {row['component']!r} is no number") from None
        figures = _figures(row, ("voxels", *COMPONENT_FIGURES))
        components.setdefault(row["case"], {})[number] = figures
    return cases, components


def read_organ_quality(folder: Path) -> dict[str, Figures]:
    """Read the figures that lie beside organ pseudo-labels, by case.

    Raises:
        InputError: If they are not there or are no such table.
    """
    mend = "make it with `flarekd pseudo-organs --quality`"
    rows = _read(folder / QUALITY, *ORGAN_QUALITY_COLUMNS, mend=mend)
    return {row["case"]: _figures(row, ORGAN_FIGURES) for row in rows}


def read_sources(folder: Path) -> dict[str, Sources]:
    """What ``fusion.csv`` says of the cases of a folder of fused labels; nothing without one.

    Raises:
        InputError: If it is no such table.
    """
    path = folder / FUSION
    if not path.exists():
        return {}
    needed = ("case", "flags", "dropped", *_VOLUMES)
    rows = _read(path, *needed, mend="run `flarekd fuse` again: it is not of this version")
    return {row["case"]: _sources(row) for row in rows}


def _sources(row: Mapping[str, str]) -> Sources:
    ml = _figures(row, _VOLUMES)
    human, pseudo = (
        {label.name: volume for label in LABELS if (volume := ml[f"{label.name}_{source}_ml"])}
        for source in ("human", "pseudo")
    )
    drawn = sum(human.values())
    conflict = (ml["organ_against_human_ml"] or 0.0) / drawn if drawn else None
    return Sources(human, pseudo, conflict, row["flags"], row["dropped"])


def dropped_cases(folder: Path) -> set[str]:
    """Cases that were left out of a folder of fused labels on purpose; none without a list."""
    path = folder / DROPPED
    if not path.exists():
        return set()
    return {row["case"] for row in _read(path, "case", "component") if not row["component"]}


def _read(
    path: Path, *needed: str, mend: str = "make it with `flarekd pseudo-tumor --quality`"
) -> list[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows = [{key: plain(value or "") for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {str(path)!r}: {said(error)}", mend) from error
    lacking = [name for name in needed if name not in (reader.fieldnames or ())]
    if lacking:
        raise InputError(f"{str(path)!r} has no column {lacking[0]!r}", mend)
    return rows


def _figures(row: Mapping[str, str], names: Sequence[str]) -> Figures:
    figures: Figures = {}
    for name in names:
        cell = row.get(name, "")
        try:
            figures[name] = float(cell) if cell else None
        except ValueError:
            raise InputError(f"case {row['case']!r}: {name} {cell!r} is no number") from None
    return figures


def _told(dropped: Dropped) -> str:
    what = "case" if dropped.component is None else f"component {dropped.component}"
    hit = "" if dropped.value is None else f": {dropped.value:.4g}"
    return f"{what} ({dropped.rule}{hit})"


def _ml(voxels: int, facts: Facts) -> str:
    return f"{voxels * facts.voxel_ml:.4f}"
