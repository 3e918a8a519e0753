"""Many scans through a student: whatever they are called and wherever they come from.

While the network is loaded the first scan is read; while it runs on one, the next is read and the
last written. Under torchrun each process takes its share of the scans. What is whole and current is
left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flarekd import __version__, console
from flarekd.errors import CasesFailedError, FlarekdError, InputError, NoRoomError, counted, reason
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import read_volume, write_labels
from flarekd.imaging.volume import Volume
from flarekd.inference.predictor import device_for
from flarekd.inference.runtimes import Runtime
from flarekd.ledger import DONE, Ledger, refuse_foreign, stamp
from flarekd.modelfile import ModelCard
from flarekd.parallel import Behind, Outcome, read_ahead
from flarekd.report.beside import Beside
from flarekd.student.budget import Budget
from flarekd.student.segment import NOT_CT, Prepared, Segmentation, Student, WindowSettings
from flarekd.training import ranks

FAILURES = (FlarekdError, OSError, ValueError, MemoryError, RuntimeError)
"""What ends a case and not the run; torch says RuntimeError where memory is short."""


@dataclass(frozen=True)
class Options:
    """What may be told beside the files.

    Attributes:
        device: As `predictor.device_for` takes it.
        runtime: What runs the network.
        settings: What to do otherwise than the model file says.
        max_memory_gb: Bytes · 10⁻⁹ that the process may take; None for no limit.
        beside: What to write beside each label map.
    """

    device: str = "auto"
    runtime: Runtime = "auto"
    settings: WindowSettings = field(default_factory=WindowSettings)
    max_memory_gb: float | None = None
    beside: Beside = field(default_factory=Beside)


@dataclass(frozen=True)
class _Scan:
    """A scan to segment: its case, its file, and what its record is known by."""

    case: str
    path: Path
    key: str


@dataclass(frozen=True)
class _Read:
    """A scan on its way: ready for the network, and itself where it is needed again."""

    prepared: Prepared
    volume: Volume | None


def _welcome(_card: ModelCard) -> None:
    """Any student will do."""


def segment_scans(
    scans: Mapping[str, Path],
    model: Path,
    out: Path,
    options: Options,
    check: Callable[[ModelCard], None] = _welcome,
) -> None:
    """Segment scans; a re-run does those that are missing or out of date.

    Args:
        scans: By case id.
        model: Student model file.
        out: Gets <case>.nii.gz and report.json.
        options: How.
        check: Raises where what the model says of itself will not do, before anything is done.

    Raises:
        InputError: If the model cannot be used, or a file that no run wrote would be replaced.
        UsageError: If device or runtime are not there, or the memory allowed is too little for
            anything.
        NoRoomError: If the disk is full.
        CasesFailedError: After the rest is written, if some scans failed.
    """
    everything = {case: Beside.everything(out, case) for case in scans}
    refuse_foreign(out / DONE, everything, Beside.shared(out))
    with (
        ranks.joined(device_for(model, options.device)) as (crew, where),
        ranks.holding(out, crew, console.warn),
    ):
        mine = dict(list(scans.items())[crew.rank :: crew.size])
        # with a limit, memory is planned before anything is read
        begun = _begin(mine, out) if options.max_memory_gb is None else {}
        student = Student.load(
            model, device=where, runtime=options.runtime, settings=options.settings
        )
        check(student.predictor.card)
        run = _Run(student, out, options.beside, begun)
        run.segment(mine, options.max_memory_gb)
        failed = {c: why for part in crew.gather(run.failed) for c, why in part.items()}
        if crew.is_first:
            Ledger(out / DONE).claim()
            options.beside.finish(out, [case for case in scans if case not in failed], run.names)
            _finish(student, model, out, scans, failed)


_TimedVolume = tuple[Volume, float]  # and the seconds that reading it took


def _begin(scans: Mapping[str, Path], out: Path) -> dict[Path, Future[_TimedVolume]]:
    """Begin to read the first scan that has no label map, if there is one, in a thread."""
    first = next((p for case, p in scans.items() if not _target(out, case).exists()), None)
    if first is None:
        return {}
    thread = ThreadPoolExecutor(1, "first-scan")
    begun = {first: thread.submit(_timed_volume, first)}
    thread.shutdown(wait=False)
    return begun


def _timed_volume(path: Path) -> _TimedVolume:
    began = time.monotonic()
    return read_volume(path), time.monotonic() - began


class _Run:
    """One process's share of the scans, from files to label maps; some may be begun already."""

    def __init__(
        self, student: Student, out: Path, beside: Beside, begun: dict[Path, Future[_TimedVolume]]
    ) -> None:
        card = student.predictor.card
        self.failed: dict[str, str] = {}
        self.names = dict(zip(card.label_ids[1:], card.labels[1:], strict=True))
        self._student, self._out, self._beside, self._begun = student, out, beside, begun
        self._ledger = Ledger(out / DONE)

    def segment(self, scans: dict[str, Path], max_memory_gb: float | None) -> None:
        """Segment those scans that are not done."""
        todo = self._todo(scans)
        is_overlapped = len(todo) > 1
        if max_memory_gb is not None and todo:
            todo, is_overlapped = self._within(todo, max_memory_gb)
        behind = Behind(is_behind=is_overlapped)
        with console.progress("Segmenting") as advance, behind as writer:
            outcomes = read_ahead(self._read, todo, is_ahead=is_overlapped)
            for done, outcome in enumerate(outcomes, len(scans) - len(todo)):
                advance(done, len(scans), outcome.item.case)

                def tell(
                    window: int, windows: int, done: int = done, case: str = outcome.item.case
                ) -> None:
                    advance(done, len(scans), f"{case} · window {window} of {windows}")

                writer.do(self._look(outcome, tell))
            advance(len(scans), len(scans), "")

    def _todo(self, scans: dict[str, Path]) -> list[_Scan]:
        student = self._student
        how = [student.windows, student.step, student.method, student.predictor.runtime]
        how += ["dicom-seg"] if self._beside.dicom_seg else []
        todo = []
        for case, path in scans.items():
            try:
                key = stamp(student.predictor.sha256, how, str(path), path)
            except OSError as error:
                self._fail(case, str(error))
                continue
            outputs = [_target(self._out, case), *self._beside.outputs(self._out, case)]
            if not self._ledger.is_done(case, key, *outputs):
                todo.append(_Scan(case, path, key))
        return todo

    def _within(self, todo: list[_Scan], max_memory_gb: float) -> tuple[list[_Scan], bool]:
        """The scans that fit into the memory allowed, and whether they may overlap."""
        how = self._beside
        budget = Budget.of(
            self._student, max_memory_gb, keeps_scan=how.needs_scan, beside=how.voxel_bytes
        )
        refused = budget.refuse({scan.case: scan.path for scan in todo})
        for case, why in refused.items():
            Beside.forget(self._out, case)
            self._fail(case, why)
        fit = [scan for scan in todo if scan.case not in refused]
        return fit, budget.allows_overlap([scan.path for scan in fit])

    def _fail(self, case: str, why: str) -> None:
        self.failed[case] = why
        console.error(f"{case}: {why}")

    def _read(self, scan: _Scan) -> _Read:
        self._ledger.begin(scan.case)
        Beside.forget(self._out, scan.case)  # of another model or scan: if this fails, none
        begun = self._begun.pop(scan.path, None)
        volume, seconds = begun.result() if begun else _timed_volume(scan.path)
        for note in volume.notes:
            console.warn(f"{scan.path}: {note}")
        try:
            prepared = self._student.prepare(volume)
        except RuntimeError as error:  # torch's word for too little memory
            raise InputError(f"{scan.path}: {reason(error)}") from error
        if prepared.not_ct:
            console.warn(f"{scan.path}: {NOT_CT}: {prepared.not_ct}")
        prepared.seconds["read"] = round(seconds, 3)
        return _Read(prepared, volume if self._beside.needs_scan else None)

    def _look(
        self, outcome: Outcome[_Scan, _Read], tell: Callable[[int, int], None]
    ) -> Callable[[], None]:
        """Run the network; what is left to do is returned."""
        scan, read = outcome.item, outcome.result
        if read is None:
            self._fail(scan.case, outcome.error or "it could not be read")
            return lambda: None
        try:
            found = self._student.segment(read.prepared, tell)
        except FAILURES as error:
            self._fail(scan.case, reason(error))
            return lambda: None
        return partial(self._write, scan, read, found)

    def _write(self, scan: _Scan, read: _Read, found: Segmentation) -> None:
        target = _target(self._out, scan.case)
        try:
            began = time.monotonic()
            labels = found.labels
            write_labels(target, labels, self.names)
            self._beside.write(
                self._out, scan.case, scan.path, scan=read.volume, labels=labels, names=self.names
            )
            found.seconds["write"] = round(time.monotonic() - began, 3)
            facts = _facts(self._student, scan.path, target, found)
            self._ledger.add(scan.case, scan.key, **facts, not_ct=read.prepared.not_ct)
        except NoRoomError:
            raise
        except FAILURES as error:
            self._fail(scan.case, reason(error))


def _target(out: Path, case: str) -> Path:
    return out / f"{case}.nii.gz"


def _facts(student: Student, path: Path, target: Path, found: Segmentation) -> dict[str, Any]:
    """What report.json says of a case."""
    card, geometry = student.predictor.card, found.labels.geometry
    return {
        "input": str(path),
        "output": target.name,
        "size": list(geometry.size_xyz),
        "spacing_mm": list(geometry.spacing_xyz),
        "windows_run": found.windows_run,
        "windows_total": found.windows_total,
        "volume_ml": found.volumes_ml(dict(zip(card.label_ids[1:], card.labels[1:], strict=True))),
        "seconds": found.seconds,
    }


def _finish(
    student: Student, model: Path, out: Path, scans: Mapping[str, Path], failed: dict[str, str]
) -> None:
    """Write the report of all processes' cases, and say how it went."""
    ledger = Ledger(out / DONE)
    records = [ledger.records[case] for case in scans if case not in failed]
    report = {
        "flarekd": __version__,
        "model": str(model),
        "model_sha256": student.predictor.sha256,
        "device": str(student.predictor.device),
        "runtime": student.predictor.runtime,
        "windows": student.windows,
        "step": student.step,
        "cases": [{k: v for k, v in record.items() if k != "key"} for record in records],
        "failed": failed,
    }
    write_json(out / "report.json", report)
    console.info(f"{out}: {counted(records, 'label map')}, {counted(failed, 'scan')} failed")
    if failed:
        raise CasesFailedError(f"{len(failed)} of {len(scans)} scans failed: {', '.join(failed)}")
