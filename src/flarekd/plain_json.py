"""JSON as values within limits: the file may come from a stranger.

The parser of Python's library is sound, but ends on what is nested too deep with an error that
nobody catches, and what is nested less deep, or a number of any length, ends others later.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 28
"""The evidence of 50,000 cases."""

MOST_OF_OTHERS = 1 << 24
"""Of files that other programs write, and that are short."""

DEEPEST = 40
LONGEST_NUMBER = 300
"""Digits of a whole number: a longer one is larger than any float."""


def read(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """Read a file.

    Raises:
        ValueError: If it is no JSON, or beyond the limits.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        message = f"the file is longer than {most_bytes:,} bytes"
        raise ValueError(message)
    return parse(content)


def parse(text: str | bytes) -> Any:
    """Read values from text; bytes are UTF-8.

    Raises:
        ValueError: As `read`.
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"values are nested more than {DEEPEST} deep"


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        message = f"the number {digits[:10]}… has {len(digits)} digits"
        raise ValueError(message)
    return int(digits)


def _parts(value: Any) -> list[Any]:
    """What may be nested further within a value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return []
    return [part for part in value if isinstance(part, dict | list)]
