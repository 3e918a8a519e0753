"""grouping.json: the evidence, a line a case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from flarekd import __version__
from flarekd.imaging.atomic import replacing
from flarekd.labels import BY_ID
from flarekd.norms import Norms


class Report:
    """Gathers the cases of grouping.json, as text: thousands of them take little memory."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a case."""
        self._lines.append(_line(record))

    def write(
        self, path: Path, table: str, norms: Norms, refused: Mapping[str, Any], *, strict: bool
    ) -> None:
        """Write the file, whole or not at all.

        Args:
            path: The file.
            table: Name of the cohort.csv beside it that it is of.
            norms: What is usual in the cohort.
            refused: Case to why it cannot be used.
            strict: Whether ambiguous cases were left out of cohort.csv.
        """
        typical = {BY_ID[label].name: asdict(one) for label, one in norms.volumes.items()}
        told = [_line({"case": case, **refused[case]}) for case in sorted(refused)]
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(f'{{\n"flarekd": {_line(__version__)},\n"table": {_line(table)},\n')
            file.write(f'"strict": {_line(strict)},\n"typical_ml": {_line(typical)},\n"cases": [')
            _write_lines(file, self._lines)
            file.write('],\n"refused": [')
            _write_lines(file, told)
            file.write("]\n}\n")


def _write_lines(file: TextIO, lines: Sequence[str]) -> None:
    file.writelines((",\n" if index else "\n") + line for index, line in enumerate(lines))
    file.write("\n" if lines else "")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
