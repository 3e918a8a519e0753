"""pseudo-organs: cohort.csv + a network for organs → organ pseudo-labels where people drew none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import distributed

from flarekd import console, fusion_table
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, InputError, UsageError
from flarekd.imaging.atomic import update_text
from flarekd.imaging.files import read_labels, read_volume
from flarekd.labels import NAMES, ORGANS
from flarekd.ledger import Ledger, stamp_or_why
from flarekd.lock import locked
from flarekd.modelfile import ModelCard, file_hash, read_card
from flarekd.parallel import map_cases
from flarekd.quality import distances
from flarekd.segmenting import Options, segment_scans
from flarekd.tables import format_table
from flarekd.workers import plan_workers

BYTES_A_VOXEL = 8
"""What judging a pseudo-label takes: scan and labels, as stored and turned."""


@dataclass(frozen=True)
class _Judged:
    """A pseudo-label to judge; picklable, for other processes."""

    case: Case
    labels: Path
    fingerprint: Mapping[str, Any]
    key: str


def pseudo_organs(
    cohort: Path,
    model: Path,
    out: Path,
    options: Options | None = None,
    *,
    quality: bool = False,
) -> None:
    """Label the organs of every training case whose own label does not vouch for all 13.

    Args:
        cohort: cohort.csv.
        model: Model file that ``train-teacher --task organs`` made, or another that labels nothing
            but our organs.
        out: Gets <case>.nii.gz (uint8, 0 to 13) and report.json, as `infer` writes them.
        options: How.
        quality: Whether quality.csv is written too: how far each case is from those that the model
            was trained on (``quality.distances``). One of an earlier run goes where labels are
            made anew.

    Raises:
        InputError: If the model labels anything else, or a pseudo-label would replace a case's
            file.
        UsageError: If figures are wanted of several processes.
        CasesFailedError: After the rest is written, if some cases failed.
    """
    if quality and distributed.is_torchelastic_launched():
        raise UsageError(
            "figures are made by one process, and torchrun has started several",
            "run it without --quality, then once more without torchrun: what is labelled is kept",
        )
    cases = [
        c for c in read_cohort(cohort) if c.split == "train" and len(c.known_organs) < len(ORGANS)
    ]
    for case in cases:
        case.refuse_own([out / f"{case.case}.nii.gz"])

    def check(card: ModelCard) -> None:
        ours = dict(enumerate(NAMES[: len(ORGANS) + 1]))
        found = zip(card.label_ids, card.labels, strict=True)
        others = [name for label, name in found if ours.get(label) != name]
        if others:
            raise InputError(
                f"{str(model)!r} labels {', '.join(others)}, organ pseudo-labels hold organs alone",
                "train one with `flarekd train-teacher --task organs`",
            )

    scans, options = {case.case: case.image for case in cases}, options or Options()
    failure = None
    try:
        tables = [out / fusion_table.QUALITY]
        segment_scans(scans, model, out, options, check, tables=tables)
    except CasesFailedError as error:
        failure = error
    if quality:
        with locked(out, console.warn):
            _write_quality(cases, model, out, options.scheduler)
    if failure:
        raise failure


def _write_quality(cases: Sequence[Case], model: Path, out: Path, scheduler: str | None) -> None:
    """quality.csv, in the order of the cohort; what was measured is not measured again."""
    fingerprint, sha256 = read_card(model).fingerprint, file_hash(model)
    if not fingerprint:
        console.warn(f"{model} does not say what it was trained on: nothing is far from it")
    ledger = Ledger(out / "quality.jsonl")
    jobs = []
    for case in cases:
        path = out / f"{case.case}.nii.gz"
        if path.exists():
            key = stamp_or_why(sha256, case.image, path)
            jobs.append(_Judged(case, path, fingerprint, key))
    todo = [job for job in jobs if not ledger.is_done(job.case.case, job.key)]
    workers = plan_workers((job.labels for job in todo), BYTES_A_VOXEL, console.info)
    failed: dict[str, str] = {}
    with console.progress("Figures") as advance:
        for done, outcome in enumerate(map_cases(_judge, todo, workers, scheduler), 1):
            job = outcome.item
            if outcome.result is not None:
                ledger.add(job.case.case, job.key, figures=outcome.result)
            else:
                failed[job.case.case] = outcome.error or ""
            advance(done, len(todo), job.case.case)
    whole = [job.case for job in jobs if job.case.case not in failed]
    rows = [{"case": c.case, "group": c.group, **ledger.records[c.case]["figures"]} for c in whole]
    text = format_table(fusion_table.ORGAN_QUALITY_COLUMNS, rows)
    update_text(out / fusion_table.QUALITY, text)
    console.info(f"{out / fusion_table.QUALITY}: figures of {len(rows)} pseudo-labels")
    if failed:
        raise CasesFailedError("; ".join(f"{case}: {why}" for case, why in failed.items()))


def _judge(job: _Judged) -> dict[str, Any]:
    """The figures of one pseudo-label (in a worker), rounded as they are written."""
    volume, labels = read_volume(job.case.image), read_labels(job.labels).array
    mask = labels > 0
    present = np.unique(labels[mask])
    mean_hu = float(volume.array.mean(where=mask, dtype=np.float64)) if present.size else None
    spacing, shape = volume.geometry.spacing_zyx, volume.array.shape
    found = {
        "organs": int(present.size),
        "mean_hu": mean_hu,
        **distances(job.fingerprint, spacing, shape, mean_hu),
    }
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
