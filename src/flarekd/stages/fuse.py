"""fuse: partial labels, organ and tumour pseudo-labels → one label map a case (Eq. 3, 4, 5).

And what a person should know of each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flarekd import console, fusion_table
from flarekd.cohort import Case, read_cohort
from flarekd.decisions import read_unused, tell_strangers, tell_unused
from flarekd.errors import CasesFailedError, InputError, counted, reason
from flarekd.fusion import Strategy
from flarekd.fusion_checks import Facts, outliers
from flarekd.imaging.atomic import update_text
from flarekd.imaging.fuse_case import Job, fuse_one
from flarekd.labels import ORGANS
from flarekd.ledger import DONE, Ledger, refuse_foreign, stamp
from flarekd.lock import alone
from flarekd.parallel import map_cases
from flarekd.pseudo_labels import drop, with_organs
from flarekd.selection import Dropped
from flarekd.tables import format_table
from flarekd.workers import plan_workers

BYTES_A_VOXEL, BYTES_A_VOXEL_MORE = 8, 11
"""What fusing a case takes; more with its sources written, or contradictions left open."""

PROVENANCE = "provenance"
"""Folder of the volumes that say which source each voxel came from, below the fused labels."""

_FACTS = 2
"""Raised when a case's facts, or the labels, change their meaning: all are fused anew."""


@dataclass(frozen=True)
class Extras:
    """What is done beside fusing.

    Attributes:
        provenance: Whether volumes of sources are written.
        ignore_mm: Contradictions between organ pseudo-label and partial label into which a ball of
            this radius fits become `IGNORE`; None never writes it.
        drop: Rules (``selection.py``) by which pseudo-labels are left out.
        review: What a person decided (``decisions.py``): cases ticked drop or fix are left out.
    """

    provenance: bool = False
    ignore_mm: float | None = None
    drop: tuple[str, ...] = ()
    review: Path | None = None


@alone(console.warn)
def fuse_labels(
    cohort: Path,
    tumor: Path,
    out: Path,
    strategy: Strategy,
    extras: Extras | None = None,
    *,
    organs: Path | None = None,
    scheduler: str | None = None,
) -> None:
    """Write a fused label map for every training case; a re-run does what is missing or old.

    Args:
        cohort: cohort.csv; its column `annotated` drives the fusion.
        tumor: Folder of tumour pseudo-labels, one file a case without annotated tumours.
        out: Folder of fused labels; gets fusion.csv, and dropped.csv where rules are given.
        strategy: Eq. 3, 4 and 5, or the simple fusion of the ablation.
        extras: What is done beside.
        organs: Folder of organ pseudo-labels, one file a case; a case that it has none of keeps the
            one of cohort.csv.
        scheduler: As ``parallel.map_cases`` takes it.

    Raises:
        CasesFailedError: After the rest is written, if some cases failed.
        InputError: If rules are given and there are no figures for them, `organs` is no folder, or
            a file that no run wrote would be replaced.
        UsageError: If a rule is none.
    """
    extras = extras or Extras()
    everything = read_cohort(cohort)
    cases = with_organs([c for c in everything if c.split == "train"], organs)
    path = out / DONE
    tables = [out / fusion_table.FUSION, out / fusion_table.DROPPED]
    refuse_foreign(path, {case.case: _targets(out, case) for case in cases}, tables)
    ledger = Ledger(path)
    ledger.claim()
    dropped, sizes = drop(cases, tumor, extras.drop)
    dropped |= _decided(cases, extras.review, {case.case for case in everything})
    left_out = {d.case for found in dropped.values() for d in found if d.component is None}
    jobs, failed = [], {}
    for case in cases:
        if case.case in left_out:
            continue
        try:
            mine = dropped.get(case.case, ())
            jobs.append(_job(case, tumor, out, strategy, extras, dropped=mine, sizes=sizes))
        except (InputError, OSError) as error:
            failed[case.case] = reason(error)
    _tell_bare(jobs)
    todo = [job for job in jobs if not ledger.is_done(job.case.case, job.key, *job.outputs)]
    stale = [case for case in cases if case.case in left_out or case.case in failed]
    old = [*stale, *(job.case for job in todo)]
    ledger.refuse_changed({case.case: _targets(out, case) for case in old})
    for job in todo:
        ledger.begin(job.case.case)
    for case in old:
        _forget(case, tumor, out)
    console.info(
        f"fusing {len(todo)} of {counted(len(cases) - len(left_out), 'case')} ({strategy})"
    )
    _fuse_all(todo, ledger, failed, scheduler)
    known = {job.case.case: job for job in jobs if job.case.case not in failed}
    facts = {name: Facts(**ledger.records[name]["facts"]) for name in known}
    listed = [case for case in cases if case.case in facts or case.case in left_out]
    _write_tables(out, listed, facts, dropped, with_rules=bool(extras.drop or extras.review))
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in sorted(failed.items()))
        raise CasesFailedError(f"{counted(failed, 'case')} not fused: {names}")


def _fuse_all(
    todo: Sequence[Job], ledger: Ledger, failed: dict[str, str], scheduler: str | None
) -> None:
    """Fuse; `failed` gains case → reason."""
    is_much = any(job.sources or job.ignore_mm is not None for job in todo)
    takes = BYTES_A_VOXEL_MORE if is_much else BYTES_A_VOXEL
    sources = (job.case.label or job.case.organ_pseudo for job in todo)
    jobs = plan_workers(sources, takes, console.info)
    with console.progress("Fusing") as advance:
        outcomes = map_cases(fuse_one, todo, jobs, scheduler)
        for done, outcome in enumerate(outcomes, 1):
            job = outcome.item
            if outcome.result is not None:
                ledger.add(job.case.case, job.key, *job.outputs, facts=asdict(outcome.result))
            else:
                ledger.give_up(job.case.case, *job.outputs)
                failed[job.case.case] = outcome.error or ""
            advance(done, len(todo), job.case.case)


def _tell_bare(jobs: Sequence[Job]) -> None:
    bare = [
        job.case.case
        for job in jobs
        if job.case.organ_pseudo is None and not set(ORGANS) <= job.case.annotated
    ]
    if bare:
        console.warn(
            f"{counted(bare, 'case')} without all organs and an organ pseudo-label, the first "
            f"{bare[0]!r}: those organs stay background"
        )


def _decided(
    cases: Sequence[Case], review: Path | None, known: Collection[str]
) -> dict[str, list[Dropped]]:
    """The cases that a person took out, as dropped whole; `known` are all of the cohort."""
    unused = read_unused(review, console.warn)
    mine = {case.case: unused[case.case] for case in cases if case.case in unused}
    if strangers := tell_strangers(unused, known):
        console.warn(strangers)
    if mine:
        console.warn(tell_unused(mine))
    return {
        name: [Dropped(name, None, None, f"review: {decision}", None)]
        for name, decision in mine.items()
    }


def _forget(case: Case, tumor: Path, out: Path) -> None:
    """Remove what a run before wrote of a case that is left out, or out of date.

    The student must not find it, nor may a provenance lie beside another label than its own.
    """
    target, beside = _targets(out, case)
    given = (case.label, case.organ_pseudo, tumor / target.name)
    sources = [path.resolve() for path in given if path]
    for path in (target, beside):
        if path.resolve() not in sources:
            path.unlink(missing_ok=True)


def _targets(out: Path, case: Case) -> tuple[Path, Path]:
    """The fused label of a case, and the volume of its sources."""
    name = f"{case.case}.nii.gz"
    return out / name, out / PROVENANCE / name


def _job(
    case: Case,
    tumor: Path,
    out: Path,
    strategy: Strategy,
    extras: Extras,
    *,
    dropped: Sequence[Dropped],
    sizes: Mapping[str, Mapping[int, float | None]],
) -> Job:
    path = None
    if not case.has_tumor_label:
        path = tumor / f"{case.case}.nii.gz"
        if not path.exists():
            raise InputError(f"no tumour pseudo-label {str(path)!r}", "run `flarekd pseudo-tumor`")
    labels = [source for source in (case.label, path, case.organ_pseudo) if source is not None]
    target, sources = _targets(out, case)
    beside = sources if extras.provenance else None
    if {target.resolve(), beside and beside.resolve()} & {source.resolve() for source in labels}:
        raise InputError(f"the fused label would replace {str(target)!r}", "choose another --out")
    numbers = [one.component for one in dropped]
    key = stamp(
        _FACTS, strategy, sorted(case.annotated), extras.ignore_mm, numbers, case.image, *labels
    )
    mine = sizes.get(case.case, {})
    return Job(case, path, target, beside, strategy, extras.ignore_mm, tuple(dropped), mine, key)


def _write_tables(
    out: Path,
    cases: Sequence[Case],
    facts: Mapping[str, Facts],
    dropped: Mapping[str, Sequence[Dropped]],
    *,
    with_rules: bool,
) -> None:
    """fusion.csv and dropped.csv, in the order of the cohort."""
    unlike = outliers(facts)
    rows: list[dict[str, Any]] = []
    for case in cases:
        name = case.case
        known = dropped.get(name, ())
        rows.append(fusion_table.fusion_row(case, facts.get(name), unlike.get(name, ()), known))
    update_text(out / fusion_table.FUSION, format_table(fusion_table.FUSION_COLUMNS, rows))
    listed = [one for case in cases for one in dropped.get(case.case, ())]
    path = out / fusion_table.DROPPED
    if with_rules or path.exists():
        columns = fusion_table.DROPPED_COLUMNS
        update_text(path, format_table(columns, fusion_table.dropped_rows(listed)))
        whole = sum(one.component is None for one in listed)
        tumors = counted(len(listed) - whole, "tumour")
        console.info(f"dropped {counted(whole, 'case')} and {tumors}: see {path}")
    odd = [row for row in rows if row.get("checks")]
    if odd:
        first = odd[0]
        console.warn(
            f"{len(odd)} of {len(rows)} cases are worth a look, such as {first['case']} "
            f"({first['flags']}): see {out / fusion_table.FUSION}"
        )
