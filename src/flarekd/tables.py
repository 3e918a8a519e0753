"""Tables as CSV, which people open in a spreadsheet: no text of a file becomes a formula there.

Such text has an apostrophe before it, which `plain` takes away again; numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")  # fmt: skip
"""Text that begins so is a formula to a spreadsheet, or hides that it is one."""

_NUMBER = re.compile(r"-(inf|[\d.]+(e[+-]?\d+)?)")

_MARK = "'"


def format_rows(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Rows as CSV below the names of their columns; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(shown, row) for row in rows)
    return text.getvalue()


def format_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows by column as CSV; what is missing becomes an empty cell."""
    return format_rows(columns, ([row.get(column) for column in columns] for row in rows))


def shown(value: Any) -> Any:
    """A value as a table has it.

    >>> shown("=1+1"), shown("-2.5"), shown(-2.5), shown("a=b")
    ("'=1+1", '-2.5', -2.5, 'a=b')
    """
    if isinstance(value, str) and _is_risky(value) and not _NUMBER.fullmatch(value):
        return _MARK + value
    return value


def plain(cell: str) -> str:
    """The text that `shown` made a cell of; any other cell as it is.

    >>> plain(shown("=1+1")), plain("'tis")
    ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith(_MARK) and _is_risky(cell) else cell


def _is_risky(text: str) -> bool:
    # what begins with our mark is marked once more, or reading would take away another's
    return text.lstrip(f" {_MARK}").startswith(FORMULA)
