"""group-data: folders of scans and labels → cohort.csv (Table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flarekd import console
from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.grouping import assign_group
from flarekd.imaging import checks
from flarekd.imaging.atomic import write_text
from flarekd.imaging.files import list_scans, read_geometry, read_grid, read_labels
from flarekd.imaging.findings import admitted
from flarekd.labels import GROUPS, LABELS
from flarekd.parallel import cpu_count, map_cases


@dataclass(frozen=True)
class _Job:
    case: str
    image: Path
    label: Path | None
    organ_pseudo: Path | None


def group_data(
    images: Path,
    labels: Path | None,
    unlabeled: Path | None,
    organ_pseudo: Path | None,
    out: Path,
) -> list[Case]:
    """Find every case, what its label file annotates, and the group that makes it.

    Args:
        images: Folder of scans; those with a file in `labels` are partially labelled, others
            unlabelled.
        labels: Folder of partial label maps.
        unlabeled: Folder of further scans without labels.
        organ_pseudo: Folder of organ pseudo-labels.
        out: cohort.csv.

    Returns:
        The cases written.

    Raises:
        InputError: If there is no case, or one id stands in both image folders.
        CasesFailedError: After writing the rest, if some cases cannot be used.
    """
    jobs = _find(images, labels, unlabeled, organ_pseudo)
    cases, failed = [], {}
    with console.progress("Grouping") as advance:
        for outcome in map_cases(_examine, jobs, cpu_count()):
            if outcome.result is not None:
                cases.append(outcome.result)
            else:
                failed[outcome.item.case] = outcome.error or ""
            advance(len(cases) + len(failed), len(jobs), outcome.item.case)
    cases.sort(key=lambda case: (not case.annotated, case.case))
    if cases:
        write_text(out, format_cohort(cases, out.parent))
        _show(cases)
        console.info(f"{out}: {len(cases)} cases")
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in sorted(failed.items()))
        raise CasesFailedError(f"{len(failed)} cases were left out: {names}")
    return cases


def _find(
    images: Path, labels: Path | None, unlabeled: Path | None, organ_pseudo: Path | None
) -> list[_Job]:
    scans = list_scans(images)
    drawn = list_scans(labels) if labels else {}
    more = list_scans(unlabeled) if unlabeled else {}
    pseudo = list_scans(organ_pseudo) if organ_pseudo else {}
    both = sorted(scans.keys() & more.keys())
    if both:
        raise InputError(
            f"case {both[0]!r} is in {str(images)!r} and in {str(unlabeled)!r}",
            "rename one of them",
        )
    everything = scans | more
    if not everything:
        raise InputError(
            f"no scan in {str(images)!r}", "give a folder of .nii.gz, .mha or .nrrd files"
        )
    for name, found in (("label", drawn), ("organ pseudo-label", pseudo)):
        _tell_strays(name, found, everything)
    return [
        _Job(case, image, drawn.get(case) if case in scans else None, pseudo.get(case))
        for case, image in everything.items()
    ]


def _tell_strays(name: str, found: Mapping[str, Path], scans: Mapping[str, Path]) -> None:
    strays = sorted(found.keys() - scans.keys())
    if strays:
        console.warn(f"{len(strays)} {name} files have no scan, the first {strays[0]!r}")


def _examine(job: _Job) -> Case:
    geometry, notes = read_grid(job.image)
    for path in filter(None, (job.label, job.organ_pseudo)):
        admitted(path, checks.of_pair(geometry, read_geometry(path)))
    told = [f"image: {note}" for note in notes]
    case = Case(
        case=job.case,
        image=job.image,
        organ_pseudo=job.organ_pseudo,
        size=geometry.size_xyz,
        spacing=geometry.spacing_xyz,
    )
    if job.label is None:
        return replace(case, note="; ".join(told))
    labels = read_labels(job.label)
    told += [f"label: {note}" for note in labels.notes]
    admitted(job.label, checks.of_labels(labels.array))
    found = assign_group(checks.present(labels.array))
    return replace(
        case,
        label=job.label,
        group=found.group,
        annotated=frozenset(found.annotated),
        note="; ".join([*filter(None, [found.note]), *told]),
    )


def _show(cases: list[Case]) -> None:
    """The counts as Table 1 gives them.

    A case that is no group exactly counts in a line of its own.
    """
    rows = []
    for group, ids in GROUPS.items():
        exact = [case for case in cases if case.group == group and case.annotated == ids]
        rows.append([f"group {group}", str(len(exact)), *_ticks(ids)])
    odd = [case for case in cases if case.label and case.annotated != GROUPS.get(case.group or 0)]
    rows.append(["no exact group", str(len(odd)), *[""] * len(LABELS)])
    without = [case for case in cases if case.label is None]
    rows.append(["unlabelled", str(len(without)), *[""] * len(LABELS)])
    rows.append(["total", str(len(cases)), *[""] * len(LABELS)])
    columns = ["annotated", "cases", *(label.short for label in LABELS)]
    console.table("Cohort (Table 1)", columns, rows)
    for case in cases:
        if case.note:
            console.warn(f"{case.case}: {case.note}")


def _ticks(ids: frozenset[int]) -> list[str]:
    return ["✓" if label.id in ids else "" for label in LABELS]
