"""review: cohort.csv + label maps → a page of all cases, the most suspicious first.

Every case is read twice: once to measure it, and once to draw it, since where to cut it is known
only when it has been compared with the others. What is done is not done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flarekd import console
from flarekd.appearance import look, restore
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, InputError, counted
from flarekd.fusion_table import Sources, read_sources
from flarekd.imaging.atomic import update_text
from flarekd.imaging.files import list_scans, read_labels_on, read_volume
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.ledger import Ledger, stamp
from flarekd.lock import alone
from flarekd.parallel import map_cases
from flarekd.report.review_page import Reviewed, group_of, in_order, review_page
from flarekd.suspicion import Reason, judge
from flarekd.tables import format_table
from flarekd.usuals import Subject
from flarekd.workers import plan_workers

BYTES_A_VOXEL = 7
"""What measuring or drawing a case takes: its scan and its labels."""

PAGE, TABLE, PICTURES = "review.html", "suspicion.csv", "pictures"
COLUMNS = ("case", "group", "suspicion", "reasons")

_VERSION = 1
"""Raised when what is measured or drawn changes: all cases are done anew."""


@dataclass(frozen=True)
class _Job:
    """One case to measure, and where its label map is."""

    case: Case
    labels: Path
    key: str


@dataclass(frozen=True)
class _Picture:
    """One case to draw, through which class, and where to."""

    job: _Job
    label: int | None
    part: int
    path: Path
    key: str


@alone(console.warn)
def review(cohort: Path, labels: Path, out: Path, *, scheduler: str | None = None) -> None:
    """Write the page, its pictures and the table of reasons.

    Args:
        cohort: cohort.csv.
        labels: Folder of label maps; where ``fuse`` made them, its fusion.csv tells the sources.
        out: Gets review.html, pictures/<case>.webp and suspicion.csv.
        scheduler: As ``parallel.map_cases`` takes it.

    Raises:
        InputError: If no case of the cohort has a label map, or fusion.csv is no such table.
        CasesFailedError: After the rest is written, if some cases could not be read or drawn.
    """
    jobs, sources = _jobs(read_cohort(cohort), labels), read_sources(labels)
    failed: dict[str, str] = {}
    measured = _measure_all(jobs, Ledger(out / "measured.jsonl"), failed, scheduler)
    whole = [job for job in jobs if job.case.case in measured]
    subjects = {job.case.case: _subject(job, measured, sources) for job in whole}
    reasons = judge(subjects)
    pictures = [_picture(job, reasons[job.case.case], subjects, out) for job in whole]
    _draw_all(pictures, Ledger(out / "pictures.jsonl"), failed, scheduler)
    cases = in_order(
        Reviewed(
            one.job.case,
            subjects[one.job.case.case].measured,
            reasons[one.job.case.case],
            sources.get(one.job.case.case),
            None if one.job.case.case in failed else one.path.relative_to(out),
        )
        for one in pictures
    )
    _write(out, cases, cohort)
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in sorted(failed.items()))
        raise CasesFailedError(f"{counted(failed, 'case')} not reviewed: {names}")


def _jobs(cases: Sequence[Case], labels: Path) -> list[_Job]:
    maps = list_scans(labels)
    jobs = [
        _Job(case, maps[case.case], _key(case, maps[case.case]))
        for case in cases
        if case.case in maps
    ]
    if not jobs:
        raise InputError(f"no case of the cohort has a label map in {str(labels)!r}", "run `fuse`")
    if len(jobs) < len(cases):
        lacking = next(case.case for case in cases if case.case not in maps)
        without = counted(len(cases) - len(jobs), "case")
        console.info(f"{without} without a label map in {labels}, the first {lacking!r}")
    return jobs


def _key(case: Case, labels: Path) -> str:
    # a scan that is gone fails when it is read, where it is named
    scan = [case.image] if case.image.exists() else []
    return stamp(_VERSION, labels, *scan)


def _read(job: _Job) -> tuple[Volume, LabelMap]:
    volume = read_volume(job.case.image)
    return volume, read_labels_on(job.labels, volume.geometry)


def _measure(job: _Job) -> dict[str, Any]:
    volume, labels = _read(job)
    return asdict(look(labels.array, volume.array, labels.geometry.spacing_zyx))


def _draw(picture: _Picture) -> bool:
    from flarekd.report.thumbnails import write_thumbnails

    volume, labels = _read(picture.job)
    write_thumbnails(picture.path, volume, labels, picture.label, picture.part)
    return True


def _measure_all(
    jobs: Sequence[_Job], ledger: Ledger, failed: dict[str, str], scheduler: str | None
) -> Mapping[str, Any]:
    """What was measured of each case that could be read; `failed` gains the others."""
    todo = [job for job in jobs if not ledger.is_done(job.case.case, job.key)]
    workers = plan_workers((job.case.image for job in todo), BYTES_A_VOXEL, console.info)
    with console.progress("Measuring") as advance:
        for done, outcome in enumerate(map_cases(_measure, todo, workers, scheduler), 1):
            name = outcome.item.case.case
            if outcome.result is None:
                failed[name] = outcome.error or ""
            else:
                ledger.add(name, outcome.item.key, measured=outcome.result)
            advance(done, len(todo), name)
    names = [job.case.case for job in jobs if job.case.case not in failed]
    return {name: ledger.records[name]["measured"] for name in names}


def _subject(job: _Job, measured: Mapping[str, Any], sources: Mapping[str, Sources]) -> Subject:
    name = job.case.case
    conflict = sources[name].conflict if name in sources else None
    return Subject(restore(measured[name]), conflict, job.case.has_tumor_label)


def _picture(
    job: _Job, reasons: Sequence[Reason], subjects: Mapping[str, Subject], out: Path
) -> _Picture:
    """Through the first class that there is a reason to look at, the tumour where there is none."""
    name = job.case.case
    there = subjects[name].measured.extents
    shown = next((one for one in reasons if one.name in there), None)
    label, part = (shown.label, shown.part) if shown else (None, 1)
    return _Picture(job, label, part, out / PICTURES / f"{name}.webp", stamp(job.key, label, part))


def _draw_all(
    pictures: Sequence[_Picture], ledger: Ledger, failed: dict[str, str], scheduler: str | None
) -> None:
    """Draw what is not drawn yet; `failed` gains what could not be."""
    todo = [one for one in pictures if not ledger.is_done(one.job.case.case, one.key, one.path)]
    scans = (one.job.case.image for one in todo)
    workers = plan_workers(scans, BYTES_A_VOXEL, console.info)
    with console.progress("Drawing") as advance:
        for done, outcome in enumerate(map_cases(_draw, todo, workers, scheduler), 1):
            name = outcome.item.job.case.case
            if outcome.result is None:
                failed[name] = outcome.error or ""
            else:
                ledger.add(name, outcome.item.key)
            advance(done, len(todo), name)


def _write(out: Path, cases: Sequence[Reviewed], cohort: Path) -> None:
    rows = [
        {
            "case": one.case.case,
            "group": group_of(one.case),
            "suspicion": one.score,
            "reasons": "; ".join(reason.text for reason in one.reasons),
        }
        for one in cases
    ]
    update_text(out / TABLE, format_table(COLUMNS, rows))
    update_text(out / PAGE, review_page(cases, cohort.name))
    flagged = sum(bool(one.reasons) for one in cases)
    told = f"{counted(cases, 'case')}, {flagged} with something unlike the others"
    console.info(f"{out / PAGE}: {told}")
