"""What is done and with what.

A line a case, so that a re-run does only what is missing or out of date; and one before a case's
files are written, so that what a run left is told from what a person put there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import InputError, counted, listed, writing

DONE = "done.jsonl"
"""The ledger of a folder of results."""


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
        record = self.records.get(case)
        return (
            record is not None
            and record.get("key") == key
            and all(output.exists() for output in outputs)
        )

    def begin(self, case: str, **facts: Any) -> None:
        """Record that a case's outputs are going to be written, before one is touched.

        It is not done then, and what a kill leaves of it is known as ours (`refuse_foreign`).

        Raises:
            NoRoomError: If the disk is full.
        """
        self._append({"case": case, **facts})

    def add(self, case: str, key: str, **facts: Any) -> None:
        """Record a finished case, after its outputs are in place.

        Raises:
            NoRoomError: If the disk is full; the case is not done then.
        """
        self._append({"case": case, "key": key, **facts})

    def claim(self) -> None:
        """Make the file if need be, before what all cases share is written.

        Raises:
            NoRoomError: If the disk is full.
        """
        self._write("")

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
