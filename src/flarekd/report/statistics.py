"""What was measured of a case as JSON, and of a whole folder as two tables for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import InputError
from flarekd.imaging.atomic import write_json, write_text
from flarekd.tables import format_rows
from flarekd.volumetry import ClassStatistics, Statistics, Tumor

CLASS_TABLE, TUMOR_TABLE = "statistics.csv", "tumours.csv"
CLASS_COLUMNS = ("label", "name", "voxels", "volume_ml", "mean_hu", "sd_hu", "cut_off")
TUMOR_COLUMNS = (
    "number", "voxels", "volume_ml", "diameter_mm", "mean_hu", "x_mm", "y_mm", "z_mm",
    "organ", "organ_share", "cut_off",
)  # fmt: skip


def statistics_path(folder: Path, case: str) -> Path:
    """Where the statistics of a case lie."""
    return folder / f"{case}.statistics.json"


def write_statistics(folder: Path, case: str, statistics: Statistics) -> None:
    """Write ``<case>.statistics.json``, whole or not at all.

    Args:
        folder: Beside the label maps.
        case: Its id.
        statistics: As ``volumetry.measure`` gives them. Written to 0.1 µl, 0.01 mm and 0.01 HU.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a number is NaN or infinite.
    """
    content = {
        "case": case,
        "classes": [_class_entry(entry) for entry in statistics.classes],
        "tumour_parts": statistics.parts,
        "tumours": [_tumor_entry(tumor) for tumor in statistics.tumors],
    }
    write_json(statistics_path(folder, case), content)


def write_tables(folder: Path, cases: Sequence[str]) -> list[str]:
    """Write ``statistics.csv`` and ``tumours.csv`` anew from the JSON files of cases.

    A row a case and class, and a row a tumour. Text that a spreadsheet would run as a formula has
    an apostrophe before it; the JSON has the name as it is.

    Args:
        folder: With the JSON files; the tables go there too.
        cases: Ids, in the order of the rows.

    Returns:
        The cases without a JSON file, which have no rows.

    Raises:
        InputError: If a JSON file is none of ours.
        OSError: If a file cannot be read or written.
    """
    known = {
        case: _read(path) for case in cases if (path := statistics_path(folder, case)).exists()
    }
    _write_table(folder / CLASS_TABLE, CLASS_COLUMNS, "classes", known)
    _write_table(folder / TUMOR_TABLE, TUMOR_COLUMNS, "tumours", known)
    return [case for case in cases if case not in known]


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = plain_json.read(path)
        cells = [
            entry[key]
            for part, columns in (("classes", CLASS_COLUMNS), ("tumours", TUMOR_COLUMNS))
            for entry in content[part]
            for key in columns
        ]
        if not all(map(_is_cell, cells)):
            raise ValueError("it holds what is no number and no word")
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: is no file of statistics", "delete it and run again") from error
    return content


def _is_cell(value: Any) -> bool:
    """Whether a value is a number, a word, nothing, or words."""
    if isinstance(value, list):
        return all(isinstance(word, str) for word in value)
    return not isinstance(value, dict)


def _write_table(
    path: Path, columns: Sequence[str], part: str, contents: dict[str, dict[str, Any]]
) -> None:
    rows = (
        [case, *(_cell(entry[column]) for column in columns)]
        for case, content in contents.items()
        for entry in content[part]
    )
    write_text(path, format_rows(("case", *columns), rows))


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _class_entry(entry: ClassStatistics) -> dict[str, Any]:
    return {
        "label": entry.label,
        "name": entry.name,
        "voxels": entry.voxels,
        "volume_ml": round(entry.volume_ml, 4),
        "mean_hu": _rounded(entry.mean_hu),
        "sd_hu": _rounded(entry.sd_hu),
        "cut_off": list(entry.cut_off),
    }


def _tumor_entry(tumor: Tumor) -> dict[str, Any]:
    place: Iterable[float | None] = tumor.centroid_mm or (None, None, None)
    x, y, z = map(_rounded, place)
    return {
        "number": tumor.number,
        "voxels": tumor.voxels,
        "volume_ml": round(tumor.volume_ml, 4),
        "diameter_mm": round(tumor.diameter_mm, 2),
        "mean_hu": _rounded(tumor.mean_hu),
        "x_mm": x,
        "y_mm": y,
        "z_mm": z,
        "centroid_voxel_zyx": [round(index, 2) for index in tumor.centroid_zyx],
        "organ": tumor.organ,
        "organ_share": round(tumor.contact.get(tumor.organ, 0.0), 4),
        "contact": {name: round(share, 4) for name, share in tumor.contact.items()},
        "cut_off": list(tumor.cut_off),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
