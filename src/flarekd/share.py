"""One process's share of the scans, from files to label maps.

While the network runs on one scan, the next is read and the last written. What is whole and current
is left alone; where only what lies beside a label map is missing, the network does not run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flarekd.errors import FAILURES, InputError, NoRoomError, reason
from flarekd.imaging.files import load_itk, read_geometry, read_labels_on, read_volume, write_labels
from flarekd.imaging.listing import is_nifti
from flarekd.imaging.volume import LabelMap, Volume
from flarekd.ledger import DONE, Ledger, forget_figures
from flarekd.parallel import Behind, Outcome, read_ahead
from flarekd.report.beside import Beside
from flarekd.standing import Standing, label_map
from flarekd.student.budget import Budget
from flarekd.student.segment import NOT_CT, Prepared, Segmentation, Student
from flarekd.voice import Voice

Advance = Callable[[int, int, str], object]
"""Told how many scans are done, of how many, and what is done now."""


@dataclass(frozen=True)
class _Scan:
    """A scan to do something for.

    Attributes:
        case: Its id.
        path: Its file or folder.
        key: What its record is known by.
        has_labels: Whether its label map stays as it is.
        beside: What to write beside that.
    """

    case: str
    path: Path
    key: str
    has_labels: bool
    beside: Beside


@dataclass(frozen=True)
class _Read:
    """A scan on its way: ready for the network, or labelled; itself where it is needed again."""

    ready: Prepared | LabelMap
    volume: Volume | None


TimedVolume = tuple[Volume, float]
"""A scan, and the seconds that reading it took."""


def begin(scans: Mapping[str, Path], out: Path) -> dict[Path, Future[TimedVolume]]:
    """Begin to read the first scan that has no label map, if there is one, in a thread."""
    first = next((p for case, p in scans.items() if not label_map(out, case).exists()), None)
    if first is None:
        return {}
    thread = ThreadPoolExecutor(1, "first-scan")
    begun = {first: thread.submit(_timed_volume, first)}
    thread.shutdown(wait=False)
    return begun


def _timed_volume(path: Path) -> TimedVolume:
    began = time.monotonic()
    return read_volume(path), time.monotonic() - began


class Share:
    """One process's share of the scans, from files to label maps.

    Args:
        student: The network.
        out: Gets the label maps.
        beside: What to write beside each.
        voice: Where it speaks.
        begun: Scans that are being read already. Each is taken out as its turn comes: whoever kept
            it would keep the scan.

    Attributes:
        failed: Case to why.
    """

    def __init__(
        self,
        student: Student,
        out: Path,
        beside: Beside,
        voice: Voice,
        begun: MutableMapping[Path, Future[TimedVolume]] | None = None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self._student, self._out, self._beside, self._voice = student, out, beside, voice
        self._begun = {} if begun is None else begun
        self._names = student.names
        self._ledger = Ledger(out / DONE)
        settings = [student.windows, student.step, student.method, student.predictor.runtime]
        how = (student.predictor.sha256, settings)
        self._standing = Standing(out, self._ledger, how, beside)
        self._budget: Budget | None = None

    @property
    def how(self) -> dict[str, Any]:
        """What runs the network and how, for the report."""
        loaded, student = self._student.predictor, self._student
        return {
            "device": str(loaded.device),
            "runtime": loaded.runtime,
            "windows": student.windows,
            "step": student.step,
        }

    def make_way(self, scans: Mapping[str, Path], tables: Sequence[Path]) -> None:
        """Say which label maps are made anew for another scan, and remove tables of their figures.

        Raises:
            InputError: If a person changed one of those label maps.
        """
        todo, _ = self._todo(scans)
        anew = {one.case: [label_map(self._out, one.case)] for one in todo if not one.has_labels}
        self._ledger.refuse_changed(anew)
        for case in anew:
            if other := self._standing.other_scan(case, scans[case]):
                self._voice.warn(f"{case}: its label map was that of {other}, and is replaced")
        if anew:
            forget_figures(tables, self._voice.info)

    def segment(
        self, scans: Mapping[str, Path], max_memory_gb: float | None, advance: Advance
    ) -> None:
        """Segment those scans that are not done; what fails stands in `failed`.

        Raises:
            NoRoomError: If the disk is full.
            UsageError: If the memory allowed is too little for anything.
        """
        todo, unseen = self._todo(scans)
        for case, why in unseen.items():
            self._fail(case, why)
        anew = {one.case for one in todo if not one.has_labels}
        kept = [case for case in scans if case not in anew and case not in unseen]
        self._standing.forget_stale(kept, self._voice.info)
        is_overlapped = len(todo) > 1
        if max_memory_gb is not None and todo:
            todo, is_overlapped = self._within(todo, max_memory_gb)
        with Behind(is_behind=is_overlapped) as writer:
            outcomes = read_ahead(self._read, todo, is_ahead=is_overlapped)
            for done, outcome in enumerate(outcomes, len(scans) - len(todo)):
                advance(done, len(scans), outcome.item.case)

                def tell(
                    window: int, windows: int, done: int = done, case: str = outcome.item.case
                ) -> None:
                    advance(done, len(scans), f"{case} · window {window} of {windows}")

                writer.do(self._look(outcome, tell))
            advance(len(scans), len(scans), "")

    def _todo(self, scans: Mapping[str, Path]) -> tuple[list[_Scan], dict[str, str]]:
        """The scans that are not done; and those that cannot be looked at, with the reason."""
        todo, unseen = [], {}
        for case, path in scans.items():
            try:
                key = self._standing.key(path)
                has_labels = self._standing.has_labels(case, key, path)
            except OSError as error:
                unseen[case] = reason(error)
                continue
            beside = self._standing.missing(case) if has_labels else self._beside
            if beside.parts or not has_labels:
                todo.append(_Scan(case, path, key, has_labels, beside))
        return todo, unseen

    def _within(self, todo: list[_Scan], max_memory_gb: float) -> tuple[list[_Scan], bool]:
        """The scans that fit into the memory allowed, and whether they may overlap."""
        if self._budget is None:  # made anew, it would count what earlier cases took
            self._budget = self._plan(todo, max_memory_gb)
        labelled = {scan.case for scan in todo if scan.has_labels}
        scans = {scan.case: scan.path for scan in todo}
        refused, is_overlapped = self._budget.plan(scans, labelled)
        for case, why in refused.items():
            if case not in labelled:
                Beside.forget(self._out, case)
            self._fail(case, why)
        return [scan for scan in todo if scan.case not in refused], is_overlapped

    def _plan(self, todo: Sequence[_Scan], max_memory_gb: float) -> Budget:
        """What may be taken, once all libraries are loaded that the scans and extras need."""
        if not all(is_nifti(scan.path) for scan in todo):
            load_itk()
        self._beside.rehearse(self._names)
        return Budget.of(
            self._student,
            max_memory_gb,
            keeps_scan=self._beside.needs_scan,
            beside=partial(self._beside.takes, classes=len(self._names)),
        )

    def _fail(self, case: str, why: str) -> None:
        self.failed[case] = why
        self._voice.error(f"{case}: {why}")

    def _give_up(self, scan: _Scan, why: str) -> None:
        """The same once its files were touched; a label map that stays is as good as before."""
        if not scan.has_labels:
            self._ledger.give_up(scan.case, label_map(self._out, scan.case))
        self._fail(scan.case, why)

    def _read(self, scan: _Scan) -> _Read:
        if scan.has_labels:
            return self._read_labelled(scan)
        self._ledger.begin(scan.case, output=label_map(self._out, scan.case).name)
        Beside.forget(self._out, scan.case)  # of another model or scan: if this fails, none
        begun = self._begun.pop(scan.path, None)
        volume, seconds = begun.result() if begun else _timed_volume(scan.path)
        for note in volume.notes:
            self._voice.warn(f"{scan.path}: {note}")
        try:
            prepared = self._student.prepare(volume)
        except RuntimeError as error:  # torch's word for too little memory
            raise InputError(f"{scan.path}: {reason(error)}") from error
        if prepared.not_ct:
            self._voice.warn(f"{scan.path}: {NOT_CT}: {prepared.not_ct}")
        prepared.seconds["read"] = round(seconds, 3)
        return _Read(prepared, volume if self._beside.needs_scan else None)

    def _read_labelled(self, scan: _Scan) -> _Read:
        volume = read_volume(scan.path) if scan.beside.needs_scan else None
        # the scan's own: that of the label map was rounded as it was written
        geometry = read_geometry(scan.path) if volume is None else volume.geometry
        labels = read_labels_on(label_map(self._out, scan.case), geometry)
        return _Read(LabelMap(labels.array, geometry), volume)

    def _look(
        self, outcome: Outcome[_Scan, _Read], tell: Callable[[int, int], None]
    ) -> Callable[[], None]:
        """Run the network; what is left to do is returned."""
        scan, read = outcome.item, outcome.result
        if read is None:
            self._give_up(scan, outcome.error or "it could not be read")
            return lambda: None
        if isinstance(read.ready, LabelMap):
            return partial(self._write_beside, scan, read.volume, read.ready)
        try:
            found = self._student.segment(read.ready, tell)
        except FAILURES as error:
            self._give_up(scan, reason(error))
            return lambda: None
        return partial(self._write, scan, read.volume, found, read.ready.not_ct)

    def _write(
        self, scan: _Scan, volume: Volume | None, found: Segmentation, not_ct: str | None
    ) -> None:
        target = label_map(self._out, scan.case)
        try:
            began = time.monotonic()
            write_labels(target, found.labels, self._names)
            found.seconds["write"] = round(time.monotonic() - began, 3)
            facts = {"input": str(scan.path), "output": target.name, **found.facts(self._names)}
            self._ledger.add(scan.case, scan.key, target, **facts, not_ct=not_ct)
        except NoRoomError:
            raise
        except FAILURES as error:
            self._give_up(scan, reason(error))
            return
        self._write_beside(scan, volume, found.labels)

    def _write_beside(self, scan: _Scan, volume: Volume | None, labels: LabelMap) -> None:
        """What fails here costs no label map: that is noted already."""
        if not scan.beside.parts:
            return
        try:
            began = time.monotonic()
            scan.beside.write(
                self._out, scan.case, scan.path, scan=volume, labels=labels, names=self._names
            )
            self._standing.note(scan.case, scan.beside, time.monotonic() - began)
        except NoRoomError:
            raise
        except FAILURES as error:
            self._fail(scan.case, reason(error))
