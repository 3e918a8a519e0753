"""Score predictions against references: tables, score files, and one picture a case."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd import console
from flarekd.errors import CasesFailedError, FlarekdError, InputError
from flarekd.imaging.atomic import write_json, write_text
from flarekd.imaging.files import list_scans, read_labels, read_volume
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.labels import LABELS, TUMOR
from flarekd.metrics import PROTOCOLS, ClassScore, score_case, summarize
from flarekd.parallel import Outcome, map_cases
from flarekd.report.overlay import overlay

COLUMNS = ("case", "label", "name", "dsc", "nsd")


@dataclass(frozen=True)
class _Task:
    """One case to score; picklable, for other processes."""

    case: str
    prediction: Path
    reference: Path
    image: Path | None
    picture: Path
    protocol: str


@dataclass(frozen=True)
class _Scored:
    scores: list[ClassScore]
    note: str


def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    protocol: str,
    *,
    images: Path | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Score every reference, write ``scores.csv``, ``scores.json`` and ``overlays/<case>.png``.

    Cases pair by case id. A reference without a prediction scores 0 in every class, as FLARE 2022's
    rules count a container that failed. A prediction on another grid, or a file that cannot be
    read, leaves its case out of the means: whether the model is to blame is not known. Both kinds
    are failed cases, named in ``scores.json`` (``failed``, and ``errors`` by case) and on screen.

    Args:
        predictions: Folder of label maps.
        references: Folder of label maps with the truth.
        out: Folder to write to.
        protocol: ``flare23`` or ``corrected`` (``flarekd.metrics.score_case``).
        images: Folder of the scans, for the pictures; without it labels are drawn on black.
        jobs: Processes.

    Returns:
        What ``scores.json`` holds; fractions, None where there is nothing to average.

    Raises:
        InputError: If the protocol is unknown, the references are empty or no case is in both.
        CasesFailedError: After everything else was written, if a case failed.
    """
    if protocol not in PROTOCOLS:
        what = f"unknown protocol {protocol!r}"
        raise InputError(what, f"use one of {', '.join(PROTOCOLS)}")
    drawn, predicted = _pairs(predictions, references)
    scans = list_scans(images) if images is not None else {}
    tasks = [
        _Task(
            case,
            predicted[case],
            reference,
            scans.get(case),
            out / "overlays" / f"{case}.png",
            protocol,
        )
        for case, reference in drawn.items()
        if case in predicted
    ]
    zeros = [ClassScore(label.id, 0.0, 0.0) for label in LABELS]
    scores = dict.fromkeys([case for case in drawn if case not in predicted], zeros)
    errors = dict.fromkeys(scores, f"no prediction in {predictions}, scored 0")
    if images is not None and any(task.image is None for task in tasks):
        missing = [task.case for task in tasks if task.image is None]
        console.warn(f"no image for {', '.join(missing)}: labels are drawn on black")
    with console.progress("evaluate") as advance:
        for done, outcome in enumerate(map_cases(_score, tasks, jobs), start=1):
            _collect(outcome, scores, errors)
            advance(done, len(tasks), outcome.item.case)
    ordered = {case: scores[case] for case in sorted(scores)}
    summary = _write(out, protocol, ordered, dict(sorted(errors.items())))
    _show(summary)
    if errors:
        for case, error in sorted(errors.items()):
            console.error(f"{case}: {error}")
        what = f"{len(errors)} of {len(drawn)} cases failed: {', '.join(sorted(errors))}"
        raise CasesFailedError(what, f"the scores of the others are in {out}")
    return summary


def _pairs(predictions: Path, references: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """References and predictions by case id; says what has no partner."""
    drawn, predicted = list_scans(references), list_scans(predictions)
    if not drawn:
        what = f"{references}: no label map to score against"
        raise InputError(what, "give the folder of the reference labels with --references")
    if not drawn.keys() & predicted.keys():
        what = f"no case of {references} ({', '.join(list(drawn)[:3])}…) is in {predictions}"
        raise InputError(what, "give predictions named as their references, <case>.nii.gz")
    extra = sorted(predicted.keys() - drawn.keys())
    if extra:
        named = ", ".join(extra[:5]) + ("…" if len(extra) > 5 else "")
        console.warn(f"{len(extra)} predictions have no reference and are not scored: {named}")
    return drawn, predicted


def _score(task: _Task) -> _Scored:
    """Read, score and draw one case (in a worker)."""
    reference, prediction = read_labels(task.reference), read_labels(task.prediction)
    mismatch = reference.geometry.mismatch(prediction.geometry)
    if mismatch:
        what = f"prediction and reference do not match: {task.prediction.name} is {mismatch}"
        if "voxels" not in mismatch:
            what = f"prediction and reference do not match: {mismatch} ({task.prediction.name})"
        raise InputError(what, "predict on the scan the reference was drawn on")
    spacing = reference.geometry.spacing_zyx
    scores = score_case(prediction.array, reference.array, spacing, task.protocol)
    image, note = _image(task, reference)
    # a tumour that nobody has scores 1, which is nothing to boast of in a title
    dsc = {score.label: score.dsc for score in scores}
    if not (reference.array == TUMOR).any() and not (prediction.array == TUMOR).any():
        del dsc[TUMOR]
    overlay(image, prediction, reference, task.picture, dsc)
    return _Scored(scores, note)


def _image(task: _Task, reference: LabelMap) -> tuple[Volume | None, str]:
    """The scan to draw on; a scan that does not fit costs the background, not the score."""
    if task.image is None:
        return None, ""
    try:
        image = read_volume(task.image)
    except FlarekdError as error:
        return None, f"labels are drawn on black: {error}"
    mismatch = reference.geometry.mismatch(image.geometry)
    if mismatch:
        return None, f"labels are drawn on black: {task.image.name} does not match, {mismatch}"
    return image, ""


def _collect(
    outcome: Outcome[_Task, _Scored], scores: dict[str, list[ClassScore]], errors: dict[str, str]
) -> None:
    case = outcome.item.case
    if outcome.result is None:
        errors[case] = outcome.error or "failed"
        return
    scores[case] = outcome.result.scores
    if outcome.result.note:
        console.warn(f"{case}: {outcome.result.note}")


def _write(
    out: Path, protocol: str, scores: Mapping[str, list[ClassScore]], errors: dict[str, str]
) -> dict[str, Any]:
    """Write both score files; returns what ``scores.json`` holds."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for case, records in scores.items():
        table.writerows([case, s.label, s.name, s.dsc, s.nsd] for s in records)
    means = summarize(record for records in scores.values() for record in records)
    summary = {
        "protocol": protocol,
        **_without_nan(means),
        "cases": len(scores),
        "failed": list(errors),
        "errors": errors,
    }
    write_text(out / "scores.csv", text.getvalue())
    write_json(out / "scores.json", summary)
    return summary


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: None."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if math.isnan(value) else value


def _show(summary: Mapping[str, Any]) -> None:
    """The table of the paper's Table 5: percent with 2 digits."""
    rows = [(name, means) for name, means in summary["classes"].items() if name != "tumor"]
    rows += [("organs (mean of 13)", summary["organs"]), ("tumor", summary["tumor"])]
    rows += [("all (mean of 14)", summary["all"])]
    title = f"{summary['cases']} cases, protocol {summary['protocol']}"
    console.table(title, ("class", "DSC %", "NSD %"), list(_cells(rows)))


def _cells(rows: Iterable[tuple[str, Mapping[str, float | None]]]) -> Iterable[tuple[str, ...]]:
    for name, means in rows:
        values = (means["dsc"], means["nsd"])
        yield name, *("–" if value is None else f"{100 * value:.2f}" for value in values)
