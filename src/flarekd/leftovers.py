"""Temporary files: what they are called, and what a kill that cannot be caught left of them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

PREFIX = ".tmp-"
"""Names that begin so are torn: a dot-file, so that listings pass over what a kill left behind."""

_OF_PROCESS = re.compile(rf"{re.escape(PREFIX)}(\d{{1,9}})-")


def temporary_for(path: Path) -> Path:
    """Where this process writes what becomes `path`: beside it, with the same ending."""
    return path.with_name(f"{PREFIX}{os.getpid()}-{path.name}")


def sweep(folder: Path) -> None:
    """Delete the temporary files in a folder whose processes are gone.

    Args:
        folder: Held by this process, so that none of another machine is writing there.
    """
    for path in folder.glob(f"{PREFIX}*"):
        found = _OF_PROCESS.match(path.name)
        if found and path.is_file() and not _is_running(int(found[1])):
            with suppress(OSError):  # the disk's own refusals are told where something is written
                path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
