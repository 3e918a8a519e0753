"""cohort.csv: one row a case, made by group-data, edited by people, obeyed by every later stage."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flarekd.case_ids import on_disk, why_no_case_id
from flarekd.errors import InputError, said
from flarekd.labels import BY_ID, ORGANS, TUMOR
from flarekd.tables import format_table, plain

COLUMNS = (
    "case",
    "split",
    "group",
    "annotated",
    "image",
    "label",
    "organ_pseudo",
    "size",
    "spacing",
    "note",
)
REQUIRED = ("case", "image")
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Case:
    """One scan and what is known of it.

    Attributes:
        case: Unique id, the stem of every file written for the case.
        image: The scan.
        split: ``train`` or ``val``.
        group: Group of Table 1, None where unlabelled or unlike any group.
        annotated: λ, the ids its label file vouches for.
        label: Partial label map, None where unlabelled.
        organ_pseudo: Organ pseudo-label map, None where there is none.
        size: Voxels ``x y z`` as stored.
        spacing: Millimetres ``x y z`` as stored.
        note: What a person should know.
    """

    case: str
    image: Path
    split: str = "train"
    group: int | None = None
    annotated: frozenset[int] = field(default_factory=frozenset)
    label: Path | None = None
    organ_pseudo: Path | None = None
    size: tuple[int, ...] = ()
    spacing: tuple[float, ...] = ()
    note: str = ""

    @property
    def has_tumor_label(self) -> bool:
        """Whether a person annotated tumours in this case (groups 1 and 4)."""
        return self.label is not None and TUMOR in self.annotated

    @property
    def known_organs(self) -> frozenset[int]:
        """The organs that a person annotated in this case (groups 2 to 7)."""
        return self.annotated.intersection(ORGANS)

    def refuse_own(self, targets: Iterable[Path]) -> None:
        """Keep files that are going to be written from replacing the case's own.

        Raises:
            InputError: If one of them would.
        """
        own = [path.resolve() for path in (self.image, self.label, self.organ_pseudo) if path]
        for target in targets:
            if target.resolve() in own:
                raise InputError(
                    f"the pseudo-label would replace {str(target)!r}", "choose another --out"
                )


def format_cohort(cases: Iterable[Case], folder: Path) -> str:
    """The text of a cohort.csv that lies in `folder`; paths below it are written relative to it."""
    rows = (
        {
            "case": case.case,
            "split": case.split,
            "group": case.group,
            "annotated": " ".join(map(str, sorted(case.annotated))),
            "image": _shown(case.image, folder),
            "label": _shown(case.label, folder),
            "organ_pseudo": _shown(case.organ_pseudo, folder),
            "size": " ".join(map(str, case.size)),
            "spacing": " ".join(f"{mm:.6g}" for mm in case.spacing),
            "note": case.note,
        }
        for case in cases
    )
    return format_table(COLUMNS, rows)


def read_cohort(path: Path) -> list[Case]:
    """Read a cohort.csv, also one that a spreadsheet has saved again.

    Accepts a byte order mark, semicolons or tabs between columns, columns in any order, empty
    trailing rows, and ids that became ``14.0``. Paths are relative to the file's folder unless
    absolute.

    Args:
        path: The file.

    Returns:
        Its cases, in its order.

    Raises:
        InputError: If it cannot be read as a cohort; every faulty row is named at once.
    """
    cases: dict[str, Case] = {}
    names: dict[str, str] = {}
    problems = []
    for number, cells in _rows(path, REQUIRED)[1]:
        try:
            case = _parse(cells, path.parent)
            if case.case in cases:
                raise ValueError(f"case {case.case!r} stands there twice")
            other = names.setdefault(on_disk(case.case), case.case)
            if other != case.case:
                raise ValueError(f"cases {other!r} and {case.case!r} are one name on many disks")
            cases[case.case] = case
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        raise InputError(f"cohort {str(path)!r}: " + "; ".join(problems), "correct these rows")
    if not cases:
        raise InputError(f"cohort {str(path)!r} holds no case", "make it with `flarekd group-data`")
    return list(cases.values())


def read_traits(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read what some columns say of each case, from any table with a column ``case``.

    Args:
        path: A cohort.csv, or a table of other cases.
        columns: Those to look for.

    Returns:
        For each of them that is there, the entry of each case that has one; a case may stand there
        several times.

    Raises:
        InputError: If it cannot be read, none of the columns is there, or it says two things of a
            case.
    """
    named, rows = _rows(path, ("case",))
    traits: dict[str, dict[str, str]] = {column: {} for column in columns if column in named}
    if not traits:
        what = f"{str(path)!r} has no column {' or '.join(map(repr, columns))}"
        raise InputError(what, "add one, or leave the file out")
    torn = []
    for number, row in rows:
        for column, known in traits.items():
            entry = row.get(column, "").removesuffix(".0")  # a spreadsheet makes 4.0 of a group
            if entry and known.setdefault(row["case"], entry) != entry:
                before = known[row["case"]]
                torn.append(f"line {number}: {row['case']}: {column} {entry!r}, above {before!r}")
    if torn:
        what = f"{str(path)!r} says two things of one case: {'; '.join(torn)}"
        raise InputError(what, "keep one of the rows")
    return traits


def _rows(
    path: Path, required: Iterable[str]
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns of a table in lower case, and its rows by line number, empty ones left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"cohort {str(path)!r} is not UTF-8: byte {error.start} is no letter there"
        raise InputError(what, "save it from the spreadsheet as 'CSV UTF-8'") from error
    except OSError as error:
        raise InputError(
            f"cannot read cohort {str(path)!r}: {said(error)}", "make it with `flarekd group-data`"
        ) from error
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        table = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise _stray(path, f"near line {reader.line_num}: {error}") from error
    lacking = [name for name in required if name not in columns]
    if lacking:
        raise InputError(
            f"cohort {str(path)!r} has no column {lacking[0]!r}",
            f"its first line must name the columns {', '.join(COLUMNS)}",
        )
    rows = []
    for number, row in table:
        cells = {k: plain((value or "").strip()) for k, value in row.items() if isinstance(k, str)}
        if any("\n" in cell for cell in cells.values()):
            raise _stray(path, f"a cell goes over several lines up to line {number}")
        if any(cells.values()):
            rows.append((number, cells))
    return columns, rows


def _stray(path: Path, what: str) -> InputError:
    return InputError(
        f"cohort {str(path)!r}: {what}", 'is there a quotation mark (") too many, or a line break?'
    )


def _shown(path: Path | None, folder: Path) -> str:
    if path is None:
        return ""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return path.resolve().as_posix()


def _parse(cells: Mapping[str, str], folder: Path) -> Case:
    name = cells["case"]
    if why_no_case_id(name):
        raise ValueError(f"case id {name!r} cannot be a file name: it {why_no_case_id(name)}")
    if not cells["image"]:
        raise ValueError(f"case {name!r} has no image")
    split = cells.get("split") or "train"
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'val'")
    annotated = frozenset(_integers(cells.get("annotated", ""), "annotated"))
    unknown = sorted(annotated - set(BY_ID))
    if unknown:
        raise ValueError(f"annotated ids {unknown} are not among 1..14")
    group = _integers(cells.get("group", ""), "group")
    label = _path(cells.get("label", ""), folder)
    if annotated and label is None:
        raise ValueError(f"case {name!r} has annotated ids but no label file")
    return Case(
        case=name,
        image=folder / cells["image"],
        split=split,
        group=group[0] if group else None,
        annotated=annotated,
        label=label,
        organ_pseudo=_path(cells.get("organ_pseudo", ""), folder),
        size=tuple(_integers(cells.get("size", ""), "size")),
        spacing=tuple(_numbers(cells.get("spacing", ""), "spacing")),
        note=cells.get("note", ""),
    )


def _path(cell: str, folder: Path) -> Path | None:
    return folder / cell if cell else None


def _numbers(cell: str, column: str) -> list[float]:
    try:
        numbers = [float(part) for part in re.split(r"[\s,;]+", cell) if part]
    except ValueError:
        raise ValueError(f"{column} {cell!r} is not a list of numbers") from None
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{column} {cell!r} is not a list of finite numbers")
    return numbers


def _integers(cell: str, column: str) -> list[int]:
    numbers = _numbers(cell, column)
    if any(number != int(number) for number in numbers):
        raise ValueError(f"{column} {cell!r} is not a list of whole numbers")
    return [int(number) for number in numbers]
