"""Whether a file or folder is DICOM, without loading a DICOM library."""

from __future__ import annotations

from pathlib import Path

_LOOKED_AT = 20
"""Files of a folder that are opened before it counts as none of ours."""


def is_dicom(path: Path) -> bool:
    """Whether a file says it is DICOM: ``DICM`` after 128 bytes (part 10 of the standard)."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files of a folder is DICOM; dot-files do not count."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return any(is_dicom(path) for path in files[:_LOOKED_AT])
