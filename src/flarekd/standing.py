"""How a case stands in a folder of label maps: done, or what of it is missing.

It is done where its label map is of this scan, model and settings, and all that is asked for beside
it is there. Where only that is missing, no network is needed: it is made of the scan and the label
map.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekd.imaging.files import why_torn
from flarekd.ledger import BESIDE, DONE, Ledger, holds_something, is_same, mark_of, stamp
from flarekd.report.beside import ENDINGS, Beside

REPORT = "report.json"
"""What a run says of itself, beside the label maps."""

_OF, _NONE, _MADE = "of", "none", "made"
"""In a record's `BESIDE`: the mark of the label map; what there was nothing to write of; and the
marks of what was written."""


@dataclass(frozen=True)
class Standing:
    """How the cases of a folder stand.

    Attributes:
        out: Holds the label maps.
        ledger: Of that folder.
        how: What label maps depend on beside the scan: model and settings.
        asked: What is to lie beside each.
    """

    out: Path
    ledger: Ledger
    how: Sequence[Any]
    asked: Beside

    def key(self, path: Path) -> str:
        """What the label map of a scan is known by, however the way to the scan is written.

        Raises:
            OSError: If the scan cannot be looked at.
        """
        files = _slices(path) if path.is_dir() else [path]
        return stamp(*self.how, os.path.realpath(path), *files)

    def has_labels(self, case: str, key: str, path: Path) -> bool:
        """Whether the label map of a scan is current and whole, a person's correction among them.

        Args:
            case: Its id.
            key: What `key` says of it.
            path: The scan.
        """
        known, target = self.ledger.key(case), label_map(self.out, case)
        if known is None or not holds_something(target):
            return False
        if known != key and known not in self._earlier_keys(path):
            return False
        return not (self.ledger.is_changed(case, target) and why_torn(target))

    def other_scan(self, case: str, path: Path) -> str | None:
        """The scan that the label map of a case was made of, where it is not this one."""
        before = self.ledger.records.get(case, {}).get("input")
        # from where a relative one was meant, nobody knows any more
        if not isinstance(before, str) or Path(before).is_absolute() != path.is_absolute():
            return None
        if os.path.realpath(before) == os.path.realpath(path):
            return None
        return before if label_map(self.out, case).exists() else None

    def missing(self, case: str) -> Beside:
        """What is asked for beside the label map of a case, and not there."""
        if self._is_stale(case):
            return self.asked
        none = self._of_beside(case).get(_NONE, ())
        return Beside.of(
            [
                part
                for part in self.asked.parts
                if not (part in none or holds_something(self._path(case, part)))
            ]
        )

    def note(self, case: str, made: Beside, seconds: float) -> None:
        """Record what was made beside the label map of a case.

        Raises:
            NoRoomError: If the disk is full.
        """
        known = {} if self._is_stale(case) else self._of_beside(case)
        there = {part: self._path(case, part) for part in made.parts}
        none = {part for part, path in there.items() if not path.exists()}
        marks = {part: mark_of(path) for part, path in there.items() if part not in none}
        beside = {
            _OF: mark_of(label_map(self.out, case)),
            _NONE: sorted(none.union(known.get(_NONE, ()))),
            _MADE: {**known.get(_MADE, {}), **marks},
        }
        took = self.ledger.records[case].get("seconds", {}) | {"beside": round(seconds, 3)}
        self.ledger.note(case, seconds=took, **{BESIDE: beside})

    def forget_stale(self, cases: Iterable[str], say: Callable[[str], None]) -> None:
        """Remove what is of another label map than lies there, since a person changed it.

        What no run wrote as it is now stays: it may be of the person's label map.

        Args:
            cases: Those whose label maps stay.
            say: Told what is gone.
        """
        for case in filter(self._is_stale, cases):
            beside = {part: self._path(case, part) for part in ENDINGS}
            ours = [path for part, path in beside.items() if self._is_ours(case, part)]
            tables = Beside.tables(self.out) if beside["statistics"] in ours else []
            for path in (*tables, *ours):
                path.unlink(missing_ok=True)
                say(f"{path}: removed, the label map that it is of was changed since")

    def measured(self) -> list[str]:
        """The cases whose statistics lie there as a run wrote them, of the label maps there."""
        ending = ENDINGS["statistics"]
        cases = sorted(path.name.removesuffix(ending) for path in self.out.glob(f"*{ending}"))
        return [
            case
            for case in cases
            if case in self.ledger.records
            and self._is_ours(case, "statistics")
            and holds_something(label_map(self.out, case))
            and not self._is_stale(case)
        ]

    def _is_ours(self, case: str, part: str) -> bool:
        """Whether what lies beside a label map is there, as a run wrote it."""
        path, made = self._path(case, part), self._of_beside(case).get(_MADE)
        return isinstance(made, dict) and path.is_file() and is_same(path, made.get(part))

    def _is_stale(self, case: str) -> bool:
        """Whether what lies beside a label map is of another one."""
        target, of = label_map(self.out, case), self._of_beside(case).get(_OF)
        if of is None:  # written with the label map itself
            return self.ledger.is_changed(case, target)
        return not is_same(target, of)

    def _of_beside(self, case: str) -> dict[str, Any]:
        beside = self.ledger.records[case].get(BESIDE)
        return beside if isinstance(beside, dict) else {}

    def _path(self, case: str, part: str) -> Path:
        return self.out / f"{case}{ENDINGS[part]}"

    def _earlier_keys(self, path: Path) -> Iterator[str]:
        """What earlier versions knew the same label map by: the path as given, and --dicom-seg."""
        *model, settings = self.how
        for more in ([], ["dicom-seg"]):
            yield stamp(*model, [*settings, *more], str(path), path)


def label_map(out: Path, case: str) -> Path:
    """Where the label map of a case lies."""
    return out / f"{case}.nii.gz"


def label_maps_in(folder: Path) -> set[str]:
    """Names of the files in a folder of scans that a run wrote there: they are no scans."""
    records = Ledger(folder / DONE).records.values()
    return {record["output"] for record in records if isinstance(record.get("output"), str)}


def _slices(folder: Path) -> list[Path]:
    """The files of a DICOM folder; what a run wrote among them is none of the series."""
    shared = {DONE, REPORT, *(path.name for path in Beside.shared(folder))}
    ours = (".nii.gz", *ENDINGS.values())
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and not path.name.endswith(ours)
        and path.name not in shared
    ]
