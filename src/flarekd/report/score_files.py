"""scores.csv and lesions.csv: written by evaluate, read by whoever compares or ranks."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import InputError
from flarekd.imaging.atomic import write_text
from flarekd.labels import BY_ID, LABELS
from flarekd.metrics.lesions import Lesion
from flarekd.metrics.protocols import ClassScore
from flarekd.tables import format_rows, plain

SCORES_NAME, SUMMARY_NAME, LESIONS_NAME = "scores.csv", "scores.json", "lesions.csv"
COLUMNS = (
    "case", "label", "name", "dsc", "nsd", "hd95_mm", "reference_ml", "prediction_ml",
    "volume_bias",
)  # fmt: skip
REQUIRED = ("case", "label", "dsc", "nsd")
LESION_COLUMNS = ("case", "map", "volume_ml", "diameter_mm", "covered", "outcome")


def write_scores(folder: Path, scores: Mapping[str, Sequence[ClassScore]]) -> None:
    """Write ``scores.csv``, a row a case and class; mm and ml to 4 digits."""
    rows = (
        (
            case, s.label, s.name, s.dsc, s.nsd,
            *(round(n, 4) for n in (s.hd95_mm, s.reference_ml, s.prediction_ml, s.volume_bias)),
        )
        for case, records in scores.items()
        for s in records
    )  # fmt: skip
    write_text(folder / SCORES_NAME, format_rows(COLUMNS, rows))


def write_lesions(folder: Path, lesions: Mapping[str, Sequence[Lesion]]) -> None:
    """Write ``lesions.csv``, a row a lesion of the reference and of the prediction."""
    rows = (
        (
            case,
            "reference" if lesion.is_reference else "prediction",
            round(lesion.volume_ml, 4),
            round(lesion.diameter_mm, 2),
            round(lesion.covered, 4),
            _outcome(lesion),
        )
        for case, found in lesions.items()
        for lesion in found
    )
    write_text(folder / LESIONS_NAME, format_rows(LESION_COLUMNS, rows))


def read_scores(path: Path) -> dict[str, list[ClassScore]]:
    """Read a ``scores.csv``, also one that has DSC and NSD only.

    Returns:
        The scores of each case, all 14 classes ascending.

    Raises:
        InputError: If it cannot be read, is no such table, or a case lacks a class.
    """
    cases: dict[str, dict[int, ClassScore]] = {}
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            lacking = [name for name in REQUIRED if name not in (table.fieldnames or ())]
            if lacking:
                raise InputError(f"{path} has no column {lacking[0]!r}", "evaluate writes scores")
            for row in table:
                number = table.line_num
                score, known = _score(row), cases.setdefault(plain(row["case"]), {})
                if score.label in known:
                    message = f"{row['case']} has a score of {score.name} already"
                    raise ValueError(message)
                known[score.label] = score
    except OSError as error:
        what = f"cannot read scores {str(path)!r}: {error.strerror}"
        raise InputError(what, "write them with `flarekd evaluate`") from error
    except (ValueError, LookupError, TypeError) as error:
        what = f"cannot read scores {str(path)!r}, line {number}: {error}"
        raise InputError(what, "write them again with `flarekd evaluate`") from error
    if not cases:
        raise InputError(f"{path} holds no case", "write it again with `flarekd evaluate`")
    for case, found in cases.items():
        absent = [label.name for label in LABELS if label.id not in found]
        if absent:
            what = f"{path}: {case} has no score of {', '.join(absent)}"
            raise InputError(what, "write it again with `flarekd evaluate`")
    return {case: [found[label.id] for label in LABELS] for case, found in cases.items()}


def protocol_of(path: Path) -> str | None:
    """The protocol that the ``scores.json`` beside a ``scores.csv`` names; None without one."""
    try:
        summary = plain_json.read(path.with_name(SUMMARY_NAME))
        return str(summary["protocol"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def without_nan(value: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not know, at any depth."""
    cleaned: dict[str, Any] = _cleaned(value)
    return cleaned


def _cleaned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _cleaned(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cleaned(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _score(row: Mapping[str, str]) -> ClassScore:
    label = int(row["label"])
    if label not in BY_ID:
        message = f"label {label} is not among 1..14"
        raise ValueError(message)
    dsc, nsd = float(row["dsc"]), float(row["nsd"])
    for value in (dsc, nsd):
        if not (math.isnan(value) or 0 <= value <= 1):
            message = f"a score of {value:g} is no fraction, 0 to 1"
            raise ValueError(message)
    others = (row.get(key) or "nan" for key in ("hd95_mm", "reference_ml", "prediction_ml"))
    return ClassScore(label, dsc, nsd, *map(float, others))


def _outcome(lesion: Lesion) -> str:
    if lesion.is_reference:
        return "found" if lesion.is_found else "missed"
    return "false positive" if lesion.is_false_positive else "true positive"
