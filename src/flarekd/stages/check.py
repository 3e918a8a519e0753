"""check: open every file, say what is wrong and how to mend it, and write repaired copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd import console, plain_json
from flarekd.errors import CasesFailedError, InputError, UsageError, counted
from flarekd.imaging.atomic import write_json
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.findings import Finding
from flarekd.imaging.listing import suffix_of
from flarekd.imaging.repair import examine_labels, examine_scan
from flarekd.imaging.sweep import Entry, Sweep, sweep
from flarekd.imaging.volume import LabelMap
from flarekd.ledger import DONE, Ledger, refuse_foreign
from flarekd.lock import locked
from flarekd.parallel import map_cases
from flarekd.workers import plan_workers

CHANGES = "changes.json"

BYTES_A_VOXEL = 8
"""What opening a file takes: as stored, turned, and repaired."""


@dataclass(frozen=True)
class _Task:
    """One file to open; picklable, for other processes."""

    entry: Entry
    fix: Path | None

    @property
    def target(self) -> Path | None:
        """Where its repaired copy goes."""
        return None if self.fix is None else self.fix / self.entry.place

    @property
    def place(self) -> str:
        """What its copy is called in the ledger and in ``changes.json``."""
        return self.entry.place.as_posix()


@dataclass(frozen=True)
class _Result:
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]
    written: bool

    @property
    def is_refused(self) -> bool:
        """Whether the file cannot be used."""
        return any(finding.severity == "refused" for finding in self.findings)


def check(
    paths: Sequence[Path],
    *,
    labels: Path | None = None,
    fix: Path | None = None,
    scheduler: str | None = None,
) -> None:
    """Open every file below `paths`, print what is amiss, and repair copies where that is safe.

    Args:
        paths: Scans, label maps, DICOM folders, cohort.csv, or folders of such.
        labels: Folder of label maps of these scans.
        fix: Gets repaired copies, laid out as the originals, and ``changes.json``. Copies that an
            earlier run made of what is fine now are removed.
        scheduler: As ``parallel.map_cases`` takes it.

    Raises:
        InputError: If a path is not there or holds nothing to open, `fix` cannot be made, or a copy
            would replace a file that no run wrote.
        UsageError: If `fix` lies where the files do, or another run writes to it.
        CasesFailedError: If a file cannot be used and was not repaired.
    """
    found = sweep(paths, labels)
    if not found.entries and not found.findings:
        what = f"nothing to open in {', '.join(map(str, paths))}"
        raise InputError(what, "give .nii.gz, .mha, .nrrd, DICOM folders or cohort.csv")
    tasks = [_Task(entry, fix) for entry in found.entries]
    if fix is not None:
        _refuse_own_files(fix, tasks, found)
        try:
            fix.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"{fix}: cannot be made: {error.strerror}"
            raise InputError(what, "choose another --fix") from error
    with nullcontext() if fix is None else locked(fix, console.warn):
        known = {} if fix is None else _claim(fix, tasks)
        results = _examine_all(tasks, scheduler)
        _show(tasks, results, found.findings)
        if fix is not None:
            _drop_stale(fix, tasks, results, found.folders)
            _tell_changes(fix, tasks, results, known)
    _end(results, found.findings)


def _examine_all(tasks: Sequence[_Task], scheduler: str | None) -> dict[Path, _Result]:
    results: dict[Path, _Result] = {}
    files = (task.entry.path for task in tasks)
    workers = plan_workers(files, BYTES_A_VOXEL, console.info)
    with console.progress("Checking") as advance:
        for done, outcome in enumerate(map_cases(_examine, tasks, workers, scheduler), 1):
            path = outcome.item.entry.path
            results[path] = outcome.result or _failed(outcome.error or "cannot be opened")
            advance(done, len(tasks), path.name)
    return results


def _examine(task: _Task) -> _Result:
    """Open one file (in a worker)."""
    entry = task.entry
    if entry.is_labels:
        examined = examine_labels(entry.path, entry.scan)
    else:
        examined = examine_scan(entry.path)
    volume = examined.repaired
    if task.fix is None or task.target is None or volume is None:
        return _Result(examined.findings, examined.changes, False)
    ledger, original = Ledger(task.fix / DONE), str(entry.path.absolute())
    ledger.begin(task.place, input=original)
    try:
        if isinstance(volume, LabelMap):
            write_labels(task.target, volume)
        else:
            write_volume(task.target, volume)
    except InputError as error:
        why = Finding("refused", error.what, error.mend)
        return _Result((*examined.findings, why), (), False)
    ledger.add(task.place, "", task.target, input=original)
    return _Result(examined.findings, examined.changes, True)


def _claim(fix: Path, tasks: Sequence[_Task]) -> dict[str, dict[str, Any]]:
    """What ``changes.json`` says of earlier copies, once nothing is in the way of new ones."""
    try:
        found = plain_json.read(fix / CHANGES)
        known = {str(one["output"]): one for one in found if one["input"] and one["changes"]}
    except (OSError, ValueError, LookupError, TypeError):
        known = {}
    ledger = Ledger(fix / DONE)
    for place in known.keys() - ledger.records.keys():  # an earlier version kept no ledger
        ledger.begin(place, input=str(Path(str(known[place]["input"])).absolute()))
    copies = {task.place: [fix / task.entry.place] for task in tasks}
    refuse_foreign(ledger.path, copies)
    ledger.refuse_changed(copies)
    return known


def _drop_stale(
    fix: Path, tasks: Sequence[_Task], results: dict[Path, _Result], folders: Sequence[Path]
) -> None:
    """Remove copies of earlier runs whose originals are fine now.

    Where an original is gone or torn the copy may be all that is left: it stays and is told.
    """
    written = {task.place for task in tasks if results[task.entry.path].written}
    seen = {str(task.entry.path.absolute()): results[task.entry.path] for task in tasks}
    within = [folder.absolute() for folder in folders]
    ledger = Ledger(fix / DONE)
    for place, record in ledger.records.items():
        original, copy = str(record.get("input", "")), fix / str(place)
        # a ledger may come with somebody's data: nothing outside is removed
        is_ours = copy.is_file() and copy.resolve().is_relative_to(fix.resolve())
        if place in written or not is_ours or not suffix_of(copy):
            continue
        found = seen.get(original)
        if ledger.is_changed(place, copy):
            console.warn(f"{copy}: kept, somebody changed it since it was written")
        elif found is not None and not found.is_refused:
            copy.unlink()
            console.info(f"{copy}: removed, {original} needs no copy now")
        elif found is not None or any(Path(original).is_relative_to(one) for one in within):
            what = "cannot be used" if found else "is gone"
            console.warn(f"{copy} is of an earlier run: {original} {what}")


def _failed(why: str) -> _Result:
    return _Result((Finding("refused", why),), (), False)


def _refuse_own_files(fix: Path, tasks: Sequence[_Task], found: Sweep) -> None:
    """Nothing that was given is ever written to."""
    where = fix.resolve()
    targets = [where, *((where / task.entry.place).resolve() for task in tasks)]
    for folder in found.folders:
        if any(target.is_relative_to(folder.resolve()) for target in targets):
            raise UsageError(f"copies of --fix {fix} would lie in {folder}", "give another folder")
    own = {task.entry.path.resolve() for task in tasks}
    seen: dict[Path, Path] = {}
    for task in tasks:
        target = (where / task.entry.place).resolve()  # a folder in it may be a link
        if target in own:
            raise UsageError(f"a repaired copy would replace {target}", "choose another --fix")
        other = seen.setdefault(target, task.entry.path)
        if other is not task.entry.path:
            what = f"copies of {other} and {task.entry.path} would have one name"
            raise UsageError(what, "check them one after the other")


def _show(
    tasks: Iterable[_Task], results: dict[Path, _Result], others: Sequence[tuple[Path, Finding]]
) -> None:
    """One line a finding: what becomes of the file, the file, what is amiss and how to mend it."""
    told = list(others)
    for task in tasks:
        told += [(task.entry.path, finding) for finding in results[task.entry.path].findings]
    if told:
        console.result(f"{'outcome':<9} file: what · how to mend it")
    for path, finding in sorted(told, key=lambda one: (str(one[0]), one[1].severity)):
        line = f"{finding.severity:<9} {path}: {finding}"
        console.result(line.replace("\n", "\\n"))


def _tell_changes(
    fix: Path,
    tasks: Sequence[_Task],
    results: dict[Path, _Result],
    known: dict[str, dict[str, Any]],
) -> None:
    """Write what sets each copy apart from its original, and say it of the new ones."""
    written = [task for task in tasks if results[task.entry.path].written]
    changes = [
        {
            "input": console.plain(str(task.entry.path)),
            "output": task.place,
            "changes": list(results[task.entry.path].changes),
        }
        for task in written
    ]
    new = {str(change["output"]) for change in changes}
    kept = [one for place, one in known.items() if place not in new and (fix / place).is_file()]
    write_json(fix / CHANGES, [*kept, *changes])
    for change in changes:
        console.info(f"{fix / str(change['output'])}: {'; '.join(change['changes'])}")


def _end(results: dict[Path, _Result], others: Sequence[tuple[Path, Finding]]) -> None:
    """Say how many files came out how; `others` are of names, folders and cohort.csv."""
    counts = dict.fromkeys(("fine", "mended", "doubtful", "refused", "repaired"), 0)
    misnamed = {path.absolute() for path, finding in others if finding.severity == "refused"}
    for path, result in results.items():
        severities = {finding.severity for finding in result.findings}
        worst = next((one for one in ("refused", "doubtful", "mended") if one in severities), "")
        outcome = "repaired" if result.written and worst == "refused" else worst or "fine"
        # whatever is in it: its copy, too, has the name that no verb takes
        counts["refused" if path.absolute() in misnamed else outcome] += 1
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.info(f"{counted(results, 'file')}: {shown}")
    bad = counts["refused"] + len(misnamed - {path.absolute() for path in results})
    if bad:
        what = f"{bad} of what was looked at cannot be used"
        raise CasesFailedError(what, "each is named above with what can be done")
