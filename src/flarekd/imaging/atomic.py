"""Files that are whole or not there: written beside their target and renamed into place.

A kill that cannot be caught leaves the old file untouched and a dot-file ``.tmp-<pid>-<name>``
beside it, which nothing that lists folders looks at, and the next run that holds the folder
deletes (``leftovers.py``).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flarekd.errors import writing
from flarekd.leftovers import temporary_for

_open: set[Path] = set()
"""Temporary files of this process that are being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it on success and deleted on any error.

    The temporary name ends like the target's, so a writer that goes by the suffix (``.nii.gz``)
    does the same. Missing parent folders are made.

    Args:
        path: The file to write or replace.

    Raises:
        NoRoomError: If the disk is full.
        OSError: If the folder cannot be made, the body wrote no file, or what lies at the temporary
            name cannot be removed.
    """
    temporary = temporary_for(path)
    _open.add(temporary)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _reserve(temporary)
            yield temporary
            _flush(temporary)
            temporary.replace(path)
    except BaseException:
        # BaseException: Ctrl-C must not leave half a file either
        temporary.unlink(missing_ok=True)
        raise
    finally:
        _open.discard(temporary)


def abandon() -> None:
    """Delete what is being written: this process is about to be ended by force."""
    for temporary in list(_open):
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def update_text(path: Path, text: str) -> None:
    """Write `text` as `write_text` does, and leave a file alone that holds it already."""
    if not path.exists() or path.read_bytes() != text.encode():
        write_text(path, text)


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON, whole or not at all.

    Raises:
        TypeError: If something in `data` is no JSON value.
        ValueError: If a number is NaN or infinite, which JSON does not know.
    """
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _reserve(path: Path) -> None:
    """Make an empty file of our own: in a folder of many people a link may lie at a known name."""
    path.unlink(missing_ok=True)  # itself, not what it leads to
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.utime(path, (0, 0))  # so that it is seen whether anything was written
    finally:
        os.close(file)


def _flush(path: Path) -> None:
    # without it a power cut after the rename can leave the new name on an empty file
    with path.open("rb+") as file:
        status = os.fstat(file.fileno())
        if not status.st_size and not status.st_mtime:
            raise FileNotFoundError(errno.ENOENT, "nothing was written", str(path))
        os.fsync(file.fileno())
