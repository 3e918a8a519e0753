"""Score predictions against references: tables, score files, and one picture a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flarekd import console
from flarekd.cohort import read_traits
from flarekd.errors import CasesFailedError, InputError, counted, listed
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import list_scans
from flarekd.lock import alone
from flarekd.metrics.lesions import Lesion
from flarekd.metrics.protocols import PROTOCOLS, ClassScore
from flarekd.metrics.statistics import compare
from flarekd.metrics.summary import summary_of
from flarekd.parallel import map_cases
from flarekd.report import score_files
from flarekd.report.manifest import manifest, student_run
from flarekd.report.run_charts import efficiency_of, read_trainings
from flarekd.report.score_page import PICTURES, Material, write_page
from flarekd.report.score_tables import tables
from flarekd.scoring import Scored, Task, score
from flarekd.workers import plan_workers

TRAITS = ("group", "phase")
"""Columns of a cohort by which scores are broken down."""


BYTES_A_VOXEL = 12
"""What scoring a case takes: two label maps, the scan for the picture, and distances."""


@dataclass(frozen=True)
class Extras:
    """What an evaluation may use besides the two folders.

    Attributes:
        images: Folder of the scans, for the pictures; without it labels are drawn on black.
        cohort: cohort.csv or another table with a column ``case``: the means are broken down by
            its columns ``TRAITS``.
        other: What to compare with case by case: a scores.csv, a folder that holds one, or a
            folder of label maps, which are scored against the same references.
        training: Run folders whose curves and settings the page shows, by the network's name;
            those without a log are passed over. Where none is given, that of the student which
            the predictions say they are of.
    """

    images: Path | None = None
    cohort: Path | None = None
    other: Path | None = None
    training: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class _Found:
    """What became of the cases, by case id."""

    scores: dict[str, list[ClassScore]] = field(default_factory=dict)
    lesions: dict[str, list[Lesion]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@alone(console.warn)
def evaluate(
    predictions: Path,
    references: Path,
    out: Path,
    protocol: str,
    *,
    jobs: int | None = 1,
    extras: Extras | None = None,
    scheduler: str | None = None,
) -> dict[str, Any]:
    """Score every reference; write scores.csv, scores.json, lesions.csv, overlays/, report.html.

    Cases pair by case id. A reference without a prediction scores 0 in every class, as FLARE 2022's
    rules count a container that failed, and its lesions are missed. A prediction on another grid,
    or a file that cannot be read, leaves its case out of the means: whether the model is to blame
    is not known. Both kinds are failed cases, named in ``scores.json`` (``failed``, and ``errors``
    by case) and on screen.

    Args:
        predictions: Folder of label maps.
        references: Folder of label maps with the truth.
        out: Folder to write to; benches in its folder ``bench`` are shown on the page.
        protocol: ``flare23`` or ``corrected`` (``flarekd.metrics.score_case``).
        jobs: Processes; None for as many as there are processors and memory for, which is said.
        extras: Scans, cohort, what to compare with, trainings.
        scheduler: As ``parallel.map_cases`` takes it.

    Returns:
        What ``scores.json`` holds; fractions, None where there is nothing to average.

    Raises:
        InputError: If the protocol is unknown, the references are empty, no case is in both, or
            the cohort or what to compare with cannot be used.
        CasesFailedError: After everything else was written, if a case failed.
    """
    if protocol not in PROTOCOLS:
        what = f"unknown protocol {protocol!r}"
        raise InputError(what, f"use one of {', '.join(PROTOCOLS)}")
    extras = extras or Extras()
    other = extras.other
    traits = read_traits(extras.cohort, TRAITS) if extras.cohort else {}
    rival = _read_rival(other, protocol) if other else None
    drawn, predicted = _pairs(predictions, references)
    if rival is not None and not rival.keys() & drawn.keys():
        what = f"no case of {references} has scores in {other}"
        raise InputError(what, "compare with scores of the same cases")
    tasks = _tasks(drawn, predicted, extras.images, out, protocol)
    _forget_pictures(out, drawn)
    if jobs is None:
        jobs = plan_workers(drawn.values(), BYTES_A_VOXEL, console.info)
    absence = f"no prediction in {predictions}, scored 0"
    found = _score_all(tasks, jobs, scheduler, absence)
    summary = summary_of(found.scores, found.lesions, found.errors, protocol, traits)
    if other:
        if rival is None:
            _, predicted = _pairs(other, references)
            tasks = _tasks(drawn, predicted, None, None, protocol)
            theirs = _score_all(tasks, jobs, scheduler, f"no prediction in {other}, scored 0")
            rival = theirs.scores
            for case, error in theirs.errors.items():
                console.warn(f"{other}: {case}: {error}")
        summary["comparison"] = {"with": str(other), **compare(found.scores, rival)}
    summary = score_files.without_nan(summary)
    score_files.write_scores(out, found.scores)
    score_files.write_lesions(out, found.lesions)
    write_json(out / score_files.SUMMARY_NAME, summary)
    for title, columns, rows in tables(summary):
        console.table(title, columns, rows)
    given = {"predictions": predictions, "references": references}
    console.result(f"look at {_write_page(out, summary, found, given, extras)}")
    _tell(found.errors, len(drawn), out)
    return summary


def _write_page(
    out: Path,
    summary: Mapping[str, Any],
    found: _Found,
    given: Mapping[str, Path],
    extras: Extras,
) -> Path:
    student = student_run(given["predictions"]) if not extras.training else None
    trainings = {"student": student} if student else extras.training
    folders = {
        **given,
        "images": extras.images,
        "cohort": extras.cohort,
        "compared with": extras.other,
        **{f"training of the {name}": folder for name, folder in trainings.items()},
    }
    material = Material(
        summary,
        found.scores,
        found.lesions,
        manifest(summary, folders),
        read_trainings(trainings),
        efficiency_of(out),
    )
    return write_page(out, material)


def _tell(errors: Mapping[str, str], cases: int, out: Path) -> None:
    for case, error in errors.items():
        console.error(f"{case}: {error}")
    if errors:
        what = f"{len(errors)} of {cases} cases failed: {', '.join(errors)}"
        raise CasesFailedError(what, f"the scores of the others are in {out}")


def _forget_pictures(out: Path, cases: Mapping[str, Path]) -> None:
    """Remove the pictures that an earlier evaluation drew of cases that are not scored now."""
    try:
        earlier = score_files.read_scores(out / score_files.SCORES_NAME)
    except InputError:
        return
    for path in (out / PICTURES).glob("*.png"):
        if path.stem in earlier and path.stem not in cases:
            path.unlink()


def _read_rival(other: Path, protocol: str) -> dict[str, list[ClassScore]] | None:
    """The scores to compare with; None where they are label maps that are not scored yet."""
    file = other / score_files.SCORES_NAME if other.is_dir() else other
    if other.is_dir() and not file.exists():
        return None
    scores = score_files.read_scores(file)
    theirs = score_files.protocol_of(file)
    if theirs not in (None, protocol):
        what = f"{file} was scored by protocol {theirs!r}, not {protocol!r}"
        raise InputError(what, f"evaluate with --protocol {theirs}, or score the other again")
    return scores


def _pairs(predictions: Path, references: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """References and predictions by case id; says what has no partner."""
    drawn, predicted = list_scans(references), list_scans(predictions)
    if not drawn:
        what = f"{references}: no label map to score against"
        raise InputError(what, "give the folder of the reference labels with --references")
    if not drawn.keys() & predicted.keys():
        what = f"no case of {references} ({listed(list(drawn), most=3)}) is in {predictions}"
        raise InputError(what, "give predictions named as their references, <case>.nii.gz")
    extra = sorted(predicted.keys() - drawn.keys())
    if extra:
        what = f"{counted(extra, 'prediction')} without a reference, not scored"
        console.warn(f"{what}: {listed(extra)}")
    return drawn, predicted


def _tasks(
    drawn: Mapping[str, Path],
    predicted: Mapping[str, Path],
    images: Path | None,
    out: Path | None,
    protocol: str,
) -> list[Task]:
    """One a reference, with a picture where there is a place for it."""
    scans = list_scans(images) if images else {}
    missing = [case for case in drawn if case in predicted and case not in scans]
    if images and missing:
        console.warn(f"no image for {', '.join(missing)}: labels are drawn on black")
    return [
        Task(
            case,
            predicted.get(case),
            reference,
            scans.get(case),
            out / PICTURES / f"{case}.png" if out else None,
            protocol,
        )
        for case, reference in sorted(drawn.items())
    ]


def _score_all(tasks: Sequence[Task], jobs: int, scheduler: str | None, absence: str) -> _Found:
    """Score the cases; `absence` is what is said of one without a prediction."""
    scored: dict[str, Scored] = {}
    errors = {task.case: absence for task in tasks if task.prediction is None}
    with console.progress("evaluate") as advance:
        for done, outcome in enumerate(map_cases(score, tasks, jobs, scheduler), start=1):
            case = outcome.item.case
            if outcome.result is None:
                errors[case] = outcome.error or "failed"
            else:
                scored[case] = outcome.result
                if outcome.result.note:
                    console.warn(f"{case}: {outcome.result.note}")
            advance(done, len(tasks), case)
    return _Found(
        {case: scored[case].scores for case in sorted(scored)},
        {case: scored[case].lesions for case in sorted(scored)},
        dict(sorted(errors.items())),
    )
