"""pseudo-tumor: cohort.csv + teacher → tumour pseudo-labels where no person annotated tumours.

One process does the cases, or several that torchrun started, or the workers of a Dask cluster; each
its share (``teacher/share.py``), and one writes the report of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flarekd import __version__, console, fusion_table
from flarekd.by_workers import Told, by_workers
from flarekd.cluster import kept, new_run
from flarekd.cohort import Case, read_cohort
from flarekd.errors import CasesFailedError, counted
from flarekd.imaging.atomic import update_text, write_json
from flarekd.inference import predictor
from flarekd.inference.exported import content_hash
from flarekd.inference.runtimes import Runtime
from flarekd.ledger import DONE, Ledger, refuse_foreign
from flarekd.lock import locked
from flarekd.pseudo_labels import refuse_gone, with_organs
from flarekd.tables import format_table
from flarekd.teacher.segment import SliceSettings, require_tumors
from flarekd.teacher.share import Extras, Share, ledgers, tables, targets
from flarekd.training import ranks

__all__ = ["Extras", "SliceSettings", "pseudo_tumor"]

TITLE = "Tumour pseudo-labels"


@dataclass(frozen=True)
class _Order:
    """What a worker is told beside the case.

    Attributes:
        run: Name of the run; what a worker loaded for another one is not used.
        model: Teacher model file.
        sha256: Of that file, and of that of ``extras.against`` where there is one.
        out: Gets the pseudo-labels.
        device: As `predictor.device_for` takes it.
        runtime: What runs the network.
        extras: What is written beside.
        settings: How the teacher looks at scans.
    """

    run: str
    model: Path
    sha256: tuple[str, ...]
    out: Path
    device: str
    runtime: Runtime
    extras: Extras
    settings: SliceSettings = field(default_factory=SliceSettings)


def pseudo_tumor(
    cohort: Path,
    model: Path,
    out: Path,
    device_name: str,
    extras: Extras | None = None,
    *,
    runtime: Runtime = "auto",
    scheduler: str | None = None,
    settings: SliceSettings | None = None,
) -> None:
    """Label the tumours of every training case whose own label does not vouch for them.

    Args:
        cohort: cohort.csv.
        model: Teacher model file.
        out: Gets <case>.nii.gz (uint8, 14 where tumour) and report.json.
        device_name: As `predictor.device_for` takes it.
        extras: What is written beside.
        runtime: What runs the network; `runtimes.choose` takes it.
        scheduler: As ``parallel.map_cases`` takes it: its workers run the network, each on a device
            of its own.
        settings: What the teacher shall do otherwise than the model file says.

    Raises:
        InputError: If a model or the cohort cannot be used, a folder in `extras` is not there, a
            file that no run wrote, or that a person changed since, would be replaced, or no
            scheduler answers. On a cluster what a person changed fails its case alone.
        CasesFailedError: After the rest is written, if some cases failed.
        UsageError: If device or runtime are not there, another run writes to `out`, or something is
            given for figures that are not asked for.
    """
    extras, settings = extras or Extras(), settings or SliceSettings()
    extras.refuse_idle()
    cases = [c for c in read_cohort(cohort) if c.split == "train" and not c.has_tumor_label]
    cases = with_organs(cases, extras.organs)
    refuse_foreign(out / DONE, {c.case: targets(out, c) for c in cases}, tables(out))
    refuse_gone(extras.previous)
    if scheduler is not None:
        with locked(out, console.warn):
            teachers = [model, *([extras.against] if extras.against else [])]
            for teacher in teachers:
                require_tumors(teacher)
            sha256 = tuple(map(content_hash, teachers))
            order = _Order(new_run(), model, sha256, out, device_name, runtime, extras, settings)
            failed, how = by_workers(
                partial(_on_worker, order),
                cases,
                lambda case: case.case,
                title=TITLE,
                scheduler=scheduler,
            )
            _finish(order, cases, failed, how)
        return
    with (
        ranks.joined(predictor.device_for(model, device_name)) as (crew, where),
        ranks.holding(out, crew, console.warn),
    ):
        order = _Order("", model, (), out, device_name, runtime, extras, settings)
        share = _share(order, where, console.info, console.warn)
        crew.after_first(lambda: share.refuse_changed(cases))
        failed = _label_all(share, cases[crew.rank :: crew.size])
        failed = {case: why for part in crew.gather(failed) for case, why in part.items()}
        if crew.is_first:
            order = replace(order, sha256=(share.teacher.sha256,))
            _finish(order, cases, failed, share.how)


def _label_all(share: Share, cases: Sequence[Case]) -> dict[str, str]:
    """One process's share of the cases; those that failed, and why."""
    failed: dict[str, str] = {}
    with console.progress(TITLE) as advance:
        for done, case in enumerate(cases):
            advance(done, len(cases), case.case)
            why = share.label(case)
            if why is not None:
                failed[case.case] = why
                console.error(f"{case.case}: {why}")
        advance(len(cases), len(cases), "")
    return failed


def _on_worker(order: _Order, case: Case) -> Told:
    """One case; the networks are loaded for the first."""
    with kept(order.run, partial(_open, order)) as (share, notes):
        notes.clear()
        share.refuse_changed([case])
        return Told(share.label(case), list(notes), share.how)


def _open(order: _Order) -> tuple[Share, list[str]]:
    """A share of this worker, and where it notes what to look at.

    Raises:
        InputError: If the model file is another one here.
    """
    notes: list[str] = []
    where = predictor.device_for(order.model, order.device)
    share = _share(order, where, notes.append, notes.append)
    loaded = [share.teacher, *([share.second] if share.second else [])]
    for network, sha256 in zip(loaded, order.sha256, strict=True):
        network.require(sha256)
    return share, notes


def _share(
    order: _Order, where: torch.device, say: Callable[[str], None], warn: Callable[[str], None]
) -> Share:
    return Share.open(
        order.model,
        where,
        order.runtime,
        order.out,
        extras=order.extras,
        settings=order.settings,
        say=say,
        warn=warn,
    )


def _finish(
    order: _Order, cases: Sequence[Case], failed: Mapping[str, str], how: Mapping[str, Any]
) -> None:
    """Report what all processes did."""
    labels, figures = ledgers(order.out)
    labels.claim()
    whole = [case for case in cases if case.case not in failed]
    records = [labels.facts(case.case) for case in whole]
    report = {
        "flarekd": __version__,
        "model": str(order.model),
        "model_sha256": order.sha256[0],
        **how,
        "cases": records,
        "failed": failed,
    }
    write_json(order.out / "report.json", report)
    found = sum(record["tumor_ml"] > 0 for record in records)
    console.info(f"{order.out}: tumour found in {found} of {len(records)} cases")
    if order.extras.quality:
        _write_quality(order.out, whole, figures)
    if failed:
        raise CasesFailedError(f"{counted(failed, 'case')} not labelled: {', '.join(failed)}")


def _write_quality(out: Path, cases: Sequence[Case], figures: Ledger) -> None:
    """quality.csv and components.csv, in the order of the cohort."""
    rows, parts = [], []
    for case in cases:
        record = figures.records[case.case]
        rows.append({"case": case.case, "group": case.group, **record["figures"]})
        parts += [{"case": case.case, **part} for part in record["components"]]
    for name, columns, content in (
        (fusion_table.QUALITY, fusion_table.QUALITY_COLUMNS, rows),
        (fusion_table.COMPONENTS, fusion_table.COMPONENT_COLUMNS, parts),
    ):
        update_text(out / name, format_table(columns, content))
    console.info(f"{out / fusion_table.QUALITY}: figures of {len(rows)} pseudo-labels")
