"""log.jsonl: a record an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log.jsonl; a line torn by a kill is left out."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue
    return records
