"""Where a data set keeps its files: a folder a case, and perhaps a mask a class in it.

A layout is a path with ``{case}`` in it, such as ``{case}/imaging.nii.gz``; ``{label}`` stands for
the name of a class.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

CASE = "{case}"
_HOLES = (CASE, "{label}")


@dataclass(frozen=True)
class Layout:
    """A path with holes, below a folder that is given elsewhere.

    Attributes:
        text: As it was written.
    """

    text: str

    def __post_init__(self) -> None:
        rest = re.sub(r"\{case\}|\{label\}", "", self.text)
        if _HOLES[0] not in self.text or {"{", "}"} & set(rest):
            raise ValueError(f"{self.text!r} must have {{case}} in it, and may have {{label}}")
        path = PurePosixPath(self.text)
        if path.is_absolute() or ".." in path.parts or "\\" in self.text:
            message = f"{self.text!r} must be a path below the folder that is given, with / in it"
            raise ValueError(message)

    @property
    def has_masks(self) -> bool:
        """Whether there is one mask a class."""
        return _HOLES[1] in self.text

    def find(self, folder: Path) -> dict[str, Path]:
        """Case to file, or to folder of DICOM files; sorted by case."""
        return {case: path for case, _, path in self._found(folder)}

    def find_masks(self, folder: Path) -> dict[str, dict[str, Path]]:
        """Case to name of a class to its file; sorted by both."""
        masks: dict[str, dict[str, Path]] = {}
        for case, label, path in self._found(folder):
            masks.setdefault(case, {})[label] = path
        return masks

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Of paths below the folder; a hole that stands there twice means the same twice."""
        pattern = re.escape(self.text)
        for hole in _HOLES:
            name, written = hole[1:-1], re.escape(hole)
            pattern = pattern.replace(written, f"(?P<{name}>[^/]+)", 1)
            pattern = pattern.replace(written, f"(?P={name})")
        return re.compile(pattern)

    def _found(self, folder: Path) -> list[tuple[str, str, Path]]:
        wild = glob.escape(self.text)
        for hole in _HOLES:
            wild = wild.replace(hole, "*")
        found = []
        for path in folder.glob(wild):
            parts = path.relative_to(folder)
            # a name that begins with a dot is what a killed run or a file manager left
            if any(part.startswith(".") for part in parts.parts):
                continue
            match = self._pattern.fullmatch(parts.as_posix())
            if match:
                names = match.groupdict()
                found.append((names["case"], names.get("label", ""), path))
        return sorted(found)
