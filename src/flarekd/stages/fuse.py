"""fuse: partial labels, organ and tumour pseudo-labels → one complete label map a case (Eq.

3, 4, 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flarekd import console
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.fusion import fuse, fuse_simple
from flarekd.imaging.files import read_labels, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.labels import ORGANS
from flarekd.ledger import Ledger, stamp
from flarekd.parallel import cpu_count, map_cases

Strategy = Literal["paper", "simple"]


@dataclass(frozen=True)
class _Job:
    case: Case
    tumor: Path | None
    out: Path
    strategy: Strategy
    key: str


def fuse_labels(
    cohort: Path, tumor: Path, out: Path, strategy: Strategy, *, scheduler: str | None = None
) -> None:
    """Write a fused label map for every training case; a re-run does what is missing or old.

    Args:
        cohort: cohort.csv; its column `annotated` drives the fusion.
        tumor: Folder of tumour pseudo-labels, one file a case without annotated tumours.
        out: Folder of fused labels.
        strategy: Eq. 3, 4 and 5, or the simple fusion of the ablation.
        scheduler: As ``parallel.map_cases`` takes it.

    Raises:
        CasesFailedError: After the rest is written, if some cases failed.
    """
    ledger = Ledger(out / "done.jsonl")
    jobs, failed = [], {}
    cases = [case for case in read_cohort(cohort) if case.split == "train"]
    for case in cases:
        try:
            jobs.append(_job(case, tumor, out, strategy))
        except (InputError, OSError) as error:
            failed[case.case] = str(error)
    todo = [job for job in jobs if not ledger.is_done(job.case.case, job.key, job.out)]
    console.info(f"fusing {len(todo)} of {len(cases)} cases ({strategy})")
    bare = [job.case.case for job in jobs if job.case.organ_pseudo is None and _lacks_organs(job)]
    if bare:
        console.warn(
            f"{len(bare)} cases lack organs and have no organ pseudo-label, the first {bare[0]!r}: "
            "those organs stay background"
        )
    with console.progress("Fusing") as advance:
        outcomes = map_cases(_fuse_one, todo, cpu_count(), scheduler)
        for done, outcome in enumerate(outcomes, 1):
            job = outcome.item
            if outcome.error is None:
                ledger.add(job.case.case, job.key)
            else:
                failed[job.case.case] = outcome.error
            advance(done, len(todo), job.case.case)
    if failed:
        names = "; ".join(f"{case}: {reason}" for case, reason in sorted(failed.items()))
        raise CasesFailedError(f"{len(failed)} cases were not fused: {names}")


def _lacks_organs(job: _Job) -> bool:
    return not set(ORGANS) <= job.case.annotated


def _job(case: Case, tumor: Path, out: Path, strategy: Strategy) -> _Job:
    path = None
    if not case.has_tumor_label:
        path = tumor / f"{case.case}.nii.gz"
        if not path.exists():
            raise InputError(f"no tumour pseudo-label {str(path)!r}", "run `flarekd pseudo-tumor`")
    sources = [source for source in (case.label, path, case.organ_pseudo) if source is not None]
    target = out / f"{case.case}.nii.gz"
    if target.resolve() in [source.resolve() for source in sources]:
        raise InputError(f"the fused label would replace {str(target)!r}", "choose another --out")
    key = stamp(strategy, sorted(case.annotated), *sources)
    return _Job(case, path, target, strategy, key)


def _fuse_one(job: _Job) -> None:
    case = job.case
    first = case.label or case.organ_pseudo or job.tumor
    if first is None:
        raise InputError("no label of any kind", "give it a label or an organ pseudo-label")
    base = read_labels(first)
    partial = _array(case.label, base)
    organs = _array(case.organ_pseudo, base)
    tumor = _array(job.tumor, base) != 0
    try:
        if job.strategy == "paper":
            fused = fuse(partial, tumor, organs, case.annotated)
        else:
            fused = fuse_simple(partial, tumor, organs)
    except ValueError as error:
        raise InputError(str(error), "correct the label files") from error
    write_labels(job.out, LabelMap(fused, base.geometry))


def _array(path: Path | None, base: LabelMap) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The voxels of one source on the grid of `base`; empty where there is none."""
    if path is None:
        return np.zeros_like(base.array)
    labels = read_labels(path)
    mismatch = base.geometry.mismatch(labels.geometry)
    if mismatch:
        raise InputError(
            f"label sources do not match: {path.name} in {path.parent.name}: {mismatch}",
            "all of a case must lie on its scan's grid",
        )
    return labels.array
