"""Whether a file or folder is DICOM, without loading a DICOM library."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

_LOOKED_AT = 20
"""Files of a folder that are opened before it counts as none of ours."""

_DEEPEST = 4
"""Folders within folders that are looked into: patient, study, series, and one more."""

_MOST = 2000
"""Folders that are looked into: somebody's home is no scan either."""

SEG = ".seg.dcm"
"""Ending of what ``infer --dicom-seg`` writes, which is no scan."""

_OTHERS = (SEG, ".nii.gz", ".nii", ".json", ".csv", ".txt", ".png", ".xml")
"""Endings of what is no DICOM series, and not worth opening to see that."""


def is_dicom(path: Path) -> bool:
    """Whether a file says it is DICOM: ``DICM`` after 128 bytes (part 10 of the standard)."""
    try:
        with path.open("rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def holds_dicom(folder: Path) -> bool:
    """Whether one of the first files of a folder is DICOM; dot-files and SEG of ours do not count.

    Raises:
        OSError: If the folder cannot be read.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    return any(is_dicom(path) for path in files[:_LOOKED_AT] if not path.name.endswith(SEG))


def deeper_series(folder: Path) -> Path | None:
    """The first DICOM folder that lies deeper than directly in a folder; None where there is none.

    ``PATIENT/STUDY/SERIES`` is how an archive exports; links are not followed.
    """
    for place, folders, files in islice(os.walk(folder), _MOST):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found = Path(place)
        depth = len(found.relative_to(folder).parts)
        if depth == _DEEPEST:
            folders.clear()
        # by their names first: to open files on a distant disk takes long
        may_be = [name for name in sorted(files) if name[0] != "." and not name.endswith(_OTHERS)]
        if depth > 1 and any(is_dicom(found / name) for name in may_be[:_LOOKED_AT]):
            return found
    return None
