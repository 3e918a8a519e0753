"""log.jsonl: a record an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flarekd import plain_json

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a line torn by a kill is left out."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = plain_json.parse(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
    return records
