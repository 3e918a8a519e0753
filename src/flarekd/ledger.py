"""What is done and with what.

A line a case, so that a re-run does only what is missing or out of date.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from flarekd import plain_json
from flarekd.errors import writing


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

    def add(self, case: str, key: str, **facts: Any) -> None:
        """Record a finished case, after its outputs are in place.

        Raises:
            NoRoomError: If the disk is full; the case is not done then.
        """
        record = {"case": case, "key": key, **facts}
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # no link: it may come with somebody's data, and would be written through
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with os.fdopen(os.open(self.path, flags, 0o666), "a", encoding="utf-8") as file:
                # a line break first: the line before may have been torn
                file.write("\n" + json.dumps(record) + "\n")
        self.records[case] = record
