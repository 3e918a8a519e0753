"""Many scans through a student: whatever they are called and wherever they come from.

One process does them, or several that torchrun started, or the workers of a Dask cluster; each its
share (``share.py``), and one writes the report of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from flarekd import __version__, console
from flarekd.by_workers import Told, by_workers
from flarekd.cluster import kept, new_run
from flarekd.errors import CasesFailedError, counted
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import load_itk
from flarekd.imaging.listing import is_nifti
from flarekd.inference.exported import content_hash
from flarekd.inference.predictor import card_of, device_for
from flarekd.inference.runtimes import Runtime
from flarekd.ledger import DONE, Ledger, refuse_foreign
from flarekd.lock import locked
from flarekd.modelfile import ModelCard
from flarekd.report.beside import Beside
from flarekd.share import Share, begin
from flarekd.standing import REPORT, Standing
from flarekd.student.segment import Student, WindowSettings
from flarekd.training import ranks
from flarekd.voice import Notes


@dataclass(frozen=True)
class Options:
    """What may be told beside the files.

    Attributes:
        device: As `predictor.device_for` takes it.
        runtime: What runs the network.
        settings: What to do otherwise than the model file says.
        max_memory_gb: Bytes · 10⁻⁹ that a process may take; None for no limit.
        beside: What to write beside each label map.
        scheduler: As ``parallel.map_cases`` takes it: its workers run the network, each on a
            device of its own.
    """

    device: str = "auto"
    runtime: Runtime = "auto"
    settings: WindowSettings = field(default_factory=WindowSettings)
    max_memory_gb: float | None = None
    beside: Beside = field(default_factory=Beside)
    scheduler: str | None = None


@dataclass(frozen=True)
class _Order:
    """What a worker is told beside the scan.

    Attributes:
        run: Name of the run; what a worker loaded for another one is not used.
        model: Student model file.
        sha256: Of that file.
        out: Gets the label maps.
        options: How.
        tables: Of figures of the label maps.
        needs_itk: Whether some scans of the run are read by SimpleITK.
    """

    run: str
    model: Path
    sha256: str
    out: Path
    options: Options
    tables: tuple[Path, ...]
    needs_itk: bool = False


def _welcome(_card: ModelCard) -> None:
    """Any student will do."""


def segment_scans(
    scans: Mapping[str, Path],
    model: Path,
    out: Path,
    options: Options,
    check: Callable[[ModelCard], None] = _welcome,
    *,
    tables: Sequence[Path] = (),
    unusable: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Segment scans; a re-run does those that are missing or out of date.

    Args:
        scans: By case id.
        model: Student model file.
        out: Gets <case>.nii.gz and report.json.
        options: How.
        check: Raises where what the model says of itself will not do, before anything is done.
        tables: Of figures of the label maps; they go once one is made anew.
        unusable: What has failed already, by name, and why; told by whoever found it.

    Raises:
        InputError: If the model cannot be used, a file that no run wrote, or that a person changed
            since, would be replaced, or no scheduler answers. On a cluster what a person changed
            fails its case alone.
        UsageError: If device or runtime are not there, or the memory allowed is too little for
            anything.
        NoRoomError: If the disk is full.
        CasesFailedError: After the rest is written, if some scans failed.
    """
    everything = {case: Beside.everything(out, case) for case in scans}
    refuse_foreign(out / DONE, everything, [*Beside.shared(out), *tables])
    needs_itk = not all(map(is_nifti, scans.values()))
    order = _Order(new_run(), model, "", out, options, tuple(tables), needs_itk=needs_itk)
    if options.scheduler is None:
        _here(scans, order, check, unusable)
    else:
        _on_cluster(options.scheduler, scans, order, check, unusable)


def _on_cluster(
    scheduler: str,
    scans: Mapping[str, Path],
    order: _Order,
    check: Callable[[ModelCard], None],
    unusable: Mapping[str, str],
) -> None:
    """By the workers of a Dask cluster."""
    with locked(order.out, console.warn):
        card = card_of(order.model, "student")
        check(card)
        order = replace(order, sha256=content_hash(order.model))
        failed, how = by_workers(
            partial(_on_worker, order),
            list(scans.items()),
            lambda scan: scan[0],
            title="Segmenting",
            scheduler=scheduler,
        )
        _finish(scans, order, card.names, {**unusable, **failed}, how)


def _here(
    scans: Mapping[str, Path],
    order: _Order,
    check: Callable[[ModelCard], None],
    unusable: Mapping[str, str],
) -> None:
    """By this process, and those that torchrun started beside it."""
    out, options = order.out, order.options
    with (
        ranks.joined(device_for(order.model, options.device)) as (crew, where),
        ranks.holding(out, crew, console.warn),
    ):
        mine = dict(list(scans.items())[crew.rank :: crew.size])
        # with a limit, memory is planned before anything is read
        begun = begin(mine, out) if options.max_memory_gb is None else {}
        student = _load(order.model, where, options)
        check(student.predictor.card)
        share = Share(student, out, options.beside, console, begun)
        crew.after_first(lambda: share.make_way(scans, order.tables))
        with console.progress("Segmenting") as advance:
            share.segment(mine, options.max_memory_gb, advance)
        parts = [unusable, *crew.gather(share.failed)]
        failed = {case: why for part in parts for case, why in part.items()}
        if crew.is_first:
            order = replace(order, sha256=student.predictor.sha256)
            _finish(scans, order, student.names, failed, share.how)


def _load(model: Path, where: torch.device, options: Options) -> Student:
    return Student.load(model, device=where, runtime=options.runtime, settings=options.settings)


def _on_worker(order: _Order, scan: tuple[str, Path]) -> Told:
    """One scan; the network is loaded for the first."""
    case, path = scan
    with kept(order.run, partial(_open, order)) as (share, notes):
        share.make_way({case: path}, order.tables)
        share.segment({case: path}, order.options.max_memory_gb, lambda *_: None)
        return Told(share.failed.pop(case, None), notes.take(), share.how)


def _open(order: _Order) -> tuple[Share, Notes]:
    """A share of this worker.

    Raises:
        InputError: If the model file is another one here.
    """
    student = _load(order.model, device_for(order.model, order.options.device), order.options)
    student.predictor.require(order.sha256)
    if order.needs_itk:  # before the first case, whatever it is: its plan is that of all
        load_itk()
    notes = Notes()
    return Share(student, order.out, order.options.beside, notes), notes


def _finish(
    scans: Mapping[str, Path],
    order: _Order,
    names: Mapping[int, str],
    failed: Mapping[str, str],
    how: Mapping[str, Any],
) -> None:
    """Write what all scans share and the report, and say how it went."""
    out = order.out
    ledger = Ledger(out / DONE)
    ledger.claim()
    whole = [case for case in scans if case not in failed]
    report = {
        "flarekd": __version__,
        "model": str(order.model),
        "model_sha256": order.sha256,
        **how,
        "cases": [ledger.facts(case) for case in whole],
        "failed": failed,
    }
    write_json(out / REPORT, report)
    beside, rows = order.options.beside, set(whole)
    if beside.statistics:  # those of earlier calls, too
        rows.update(Standing(out, ledger, (), beside).measured())
    beside.finish(out, sorted(rows), names)
    console.info(f"{out}: {counted(whole, 'label map')}, {counted(failed, 'scan')} failed")
    if failed:
        count = len(whole) + len(failed)
        raise CasesFailedError(f"{len(failed)} of {count} scans failed: {', '.join(failed)}")
