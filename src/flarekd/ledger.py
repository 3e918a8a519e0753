"""What is done and with what.

A line a case, so that a re-run does only what is missing or out of date; and one before a case's
files are written, so that what a run left is told from what a person put there. It says what the
files were like when they were done, so that what a person changed in them since is told, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from flarekd import plain_json
from flarekd.errors import InputError, counted, listed, writing

DONE = "done.jsonl"
"""The ledger of a folder of results."""

_WRITTEN = "written"
"""Where a record says what a case's files were like; those of earlier versions do not."""

BESIDE = "beside"
"""Where a record says which label map what lies beside it is of (``standing.py``)."""

_GZIP_END = 8
"""Bytes at the end of a gzip file: sum and size of what is packed."""


def stamp(*parts: Any) -> str:
    """A short hash of inputs and settings; a Path counts by its name, size and modification time.

    A folder (of DICOM files) counts by those of its files: its own time tells of none that changed.

    Args:
        parts: JSON-like values and existing files.
    """
    facts = []
    for part in parts:
        if isinstance(part, Path):
            files = sorted(filter(Path.is_file, part.iterdir())) if part.is_dir() else []
            facts += [_of_file(path) for path in (part, *files)]
        else:
            facts.append(part)
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp_or_why(*parts: Any) -> str:
    """As `stamp`; where one cannot be looked at, why: whoever reads it will tell of its case."""
    try:
        return stamp(*parts)
    except OSError as error:
        return str(error)


def _of_file(path: Path) -> list[Any]:
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


class Ledger:
    """An append-only JSON-lines file, one record a finished case; the last record of a case counts.

    A line torn by a kill is ignored, so its case is done again.

    Args:
        path: The file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    record = plain_json.parse(line)
                    self.records[record["case"]] = record
                except (ValueError, KeyError, TypeError):
                    continue

    def is_done(self, case: str, key: str, *outputs: Path) -> bool:
        """Whether `case` was finished from these inputs (`key`) and its outputs are still there."""
        return self.key(case) == key and all(map(holds_something, outputs))

    def key(self, case: str) -> str | None:
        """What `case` was finished from; None where it was not."""
        key = self.records.get(case, {}).get("key")
        return key if isinstance(key, str) else None

    def begin(self, case: str, **facts: Any) -> None:
        """Record that a case's outputs are going to be written, before one is touched.

        It is not done then, and what a kill leaves of it is known as ours (`refuse_foreign`).

        Raises:
            NoRoomError: If the disk is full.
        """
        self._append({"case": case, **facts})

    def add(self, case: str, key: str, *outputs: Path, **facts: Any) -> None:
        """Record a finished case, after its outputs are in place.

        Args:
            case: Its id.
            key: As `is_done` takes it.
            outputs: Files that a person may come to change (`refuse_changed`), there or not.
            facts: JSON values to keep.

        Raises:
            NoRoomError: If the disk is full; the case is not done then.
        """
        self._append({"case": case, "key": key, **facts, **self._written(outputs)})

    def note(self, case: str, **facts: Any) -> None:
        """Record more of a finished case.

        Raises:
            NoRoomError: If the disk is full.
        """
        self._append({**self.records[case], **facts})

    def give_up(self, case: str, *outputs: Path) -> None:
        """Record that a case has failed: what comes to lie in place of `outputs` is a person's."""
        self._append({"case": case, **self._written(outputs)})

    def facts(self, case: str) -> dict[str, Any]:
        """What is recorded of a case, but for what only the ledger itself needs."""
        return {k: v for k, v in self.records[case].items() if k not in ("key", _WRITTEN, BESIDE)}

    def is_changed(self, case: str, path: Path) -> bool:
        """Whether a file is another than its case was left with; not where nothing tells.

        An empty file is nobody's: it holds nothing that could be lost.
        """
        written = self.records.get(case, {}).get(_WRITTEN)
        if not isinstance(written, dict) or not holds_something(path):
            return False
        return not is_same(path, written.get(self._name(path)))

    def refuse_changed(self, outputs: Mapping[str, Iterable[Path]]) -> None:
        """Keep a run from replacing files that a person changed, or put there, since the last one.

        Args:
            outputs: By case, the files that are going to be replaced or removed.

        Raises:
            InputError: If one of them was changed.
        """
        changed = [
            path for case, paths in outputs.items() for path in paths if self.is_changed(case, path)
        ]
        if changed:
            raise InputError(
                f"{counted(changed, 'file')} would be replaced that somebody changed since the "
                f"last run: {listed([str(path) for path in changed], most=3)}",
                "move them away to have them made anew, or write to another folder",
            )

    def claim(self) -> None:
        """Make the file if need be, before what all cases share is written.

        Raises:
            NoRoomError: If the disk is full.
        """
        self._write("")

    def _written(self, outputs: Iterable[Path]) -> dict[str, Any]:
        marks = {self._name(path): mark_of(path) if path.is_file() else None for path in outputs}
        return {_WRITTEN: {name: mark for name, mark in marks.items() if mark}} if marks else {}

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self.path.parent)).as_posix()

    def _append(self, record: dict[str, Any]) -> None:
        # a line break first: the line before may have been torn
        self._write("\n" + json.dumps(record) + "\n")
        self.records[record["case"]] = record

    def _write(self, text: str) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # no link: it may come with somebody's data, and would be written through
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(self.path, flags, 0o666), "a", encoding="utf-8") as file:
                file.write(text)


def holds_something(path: Path) -> bool:
    """Whether a file is there and not empty, as a full disk or a broken copy leaves it."""
    return path.is_file() and path.stat().st_size > 0


def mark_of(path: Path) -> list[Any]:
    """What a file is known by: size, modification time, and a sum, which gzip has in its end."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if path.name.endswith(".gz"):
            file.seek(-min(_GZIP_END, status.st_size), os.SEEK_END)
            known = file.read().hex()
        else:
            known = f"{_sum_of(file):08x}"
    return [status.st_size, status.st_mtime_ns, known]


def _sum_of(file: BinaryIO) -> int:
    found = 0
    while block := file.read(1 << 20):
        found = zlib.crc32(block, found)
    return found


def is_same(path: Path, mark: Any) -> bool:
    """Whether a file is as it was; one that was only copied or touched is.

    Args:
        path: An existing file.
        mark: What `mark_of` said of it, as read from a ledger; with anything else it is not.
    """
    if not isinstance(mark, list):
        return False
    status = path.stat()
    if mark[:2] == [status.st_size, status.st_mtime_ns]:
        return True
    size, _, known = mark_of(path)
    return [size, known] == mark[::2]


def refuse_foreign(
    path: Path, outputs: Mapping[str, Iterable[Path]], shared: Iterable[Path] = ()
) -> None:
    """Keep a run from replacing files that no run of flarekd wrote, such as a person's labels.

    Args:
        path: The ledger of the folder.
        outputs: By case, the files that may be written or removed.
        shared: Such files of all cases; theirs is a folder that has a ledger.

    Raises:
        InputError: If one of them is there, and the ledger does not have its case.
    """
    # looked for before the ledger is read: another run that is just writing is no stranger
    there = {case: [one for one in paths if one.is_file()] for case, paths in outputs.items()}
    both = [one for one in shared if one.is_file()]
    known = Ledger(path).records
    foreign = [one for case, paths in there.items() if case not in known for one in paths]
    foreign += [] if path.exists() else both
    if foreign:
        named = listed([str(one) for one in foreign], most=3)
        raise InputError(
            f"no run of flarekd has recorded {counted(foreign, 'file')} that would be replaced: "
            f"{named}",
            "write to another folder, or move them away",
        )


def forget_figures(tables: Iterable[Path], say: Callable[[str], None]) -> None:
    """Remove tables of figures, and say so: labels that they are of are about to be made anew."""
    for path in tables:
        if path.exists():
            path.unlink(missing_ok=True)  # processes of torchrun come here together
            say(f"{path}: removed, labels are made anew that it is of · --quality writes it again")
