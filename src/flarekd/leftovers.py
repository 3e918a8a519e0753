"""Temporary files: what they are called, and what a kill that cannot be caught left of them."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

PREFIX = ".tmp-"
"""Names that begin so are torn: a dot-file, so that listings pass over what a kill left behind."""

_OF_PROCESS = re.compile(rf"{re.escape(PREFIX)}(\d{{1,7}})-")  # no more digits: a date


def temporary_for(path: Path) -> Path:
    """Where this process writes what becomes `path`: beside it, with the same ending."""
    return path.with_name(f"{PREFIX}{os.getpid()}-{path.name}")


def sweep(folder: Path) -> list[Path]:
    """Delete the temporary files in a folder whose processes are gone.

    Processes of another machine count as gone, too: whoever writes there without the folder's lock
    finds its file deleted, and fails.

    Args:
        folder: Held by this process.

    Returns:
        What was deleted.
    """
    if sys.platform == "win32":  # nothing there tells whether a process runs
        return []
    deleted = []
    with suppress(OSError):  # the disk's own refusals are told where something is written
        for path in sorted(folder.glob(f"{PREFIX}*")):
            found = _OF_PROCESS.match(path.name)
            if found and path.is_file() and not _is_running(int(found[1])):
                path.unlink()
                deleted.append(path)
    return deleted


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
