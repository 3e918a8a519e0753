"""Every file of ours below some paths: scans, label maps and which scan each belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flarekd.cohort import read_cohort
from flarekd.errors import InputError, mend_of, said
from flarekd.imaging.channels import first_channels
from flarekd.imaging.findings import Finding, refused
from flarekd.imaging.listing import case_id, entries, of_names, suffix_of
from flarekd.imaging.sniff import holds_dicom

_LABEL_FOLDER = re.compile(
    r"(label|organ_?pseudo|pseudo|truth|mask|seg|predict|reference|fused)|tumor$", re.IGNORECASE
)
"""How the name of a folder of label maps begins: FLARE's layout, ours, and the usual words."""

_LABEL_FILE = re.compile(r"(segmentations?|seg|labels?|masks?)", re.IGNORECASE)
"""What a label map is called that lies in its case's own folder, beside the scan."""

_WRITABLE = {".nii.gz", ".nii", ".mha", ".nrrd"}


@dataclass(frozen=True)
class Entry:
    """A file to open.

    Attributes:
        path: The file or DICOM folder.
        place: Where its repaired copy goes, relative to the folder for copies.
        is_labels: Whether it is a label map.
        scan: The scan that a label map belongs to, None where it is not known.
    """

    path: Path
    place: Path
    is_labels: bool = False
    scan: Path | None = None


@dataclass
class Sweep:
    """What was found.

    Attributes:
        entries: Files to open, each once.
        findings: What is amiss with names, folders and cohort.csv.
        folders: The folders that were given.
    """

    entries: list[Entry] = field(default_factory=list)
    findings: list[tuple[Path, Finding]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)


def sweep(paths: Sequence[Path], labels: Path | None = None) -> Sweep:
    """Find what there is to open; folders are looked through to the bottom, each once.

    A folder holds label maps where its name says so (``labelsTr``, ``organPseudo``, ``truth``,
    ``predictions``…), else scans; ``segmentation.nii.gz`` beside one scan is its label map. Others
    belong to the one scan of their case id, or to the one that cohort.csv names.

    Args:
        paths: Scans, DICOM folders, cohort.csv, or folders of such.
        labels: Folder of label maps.

    Raises:
        InputError: If a path is not there.
    """
    found = Sweep()
    for path in paths:
        if not path.exists() and not path.is_symlink():
            raise InputError(f"no such file or folder: {str(path)!r}", "check the path")
        if path.is_dir():
            found.folders.append(path)
            name = path.resolve().name
            _walk(path, Path(name), bool(_LABEL_FOLDER.match(name)), found)
        elif path.suffix.lower() == ".csv":
            _follow(path, Path(), found)
        else:
            found.findings += of_names([path])
            found.entries.append(Entry(path, _place(path, Path())))
    if labels is not None:
        if not labels.is_dir():
            raise InputError(f"{labels}: no such folder", "check the path")
        found.folders.append(labels)
        _walk(labels, Path(labels.resolve().name), True, found)
    found.entries = _paired(_once(found.entries))
    return found


def _walk(folder: Path, place: Path, is_labels: bool, found: Sweep) -> None:
    """Look through a folder and those in it."""
    here = folder.resolve()
    try:
        scans = entries(folder)
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (InputError, OSError) as error:
        # an OSError where the folder went away in between
        if isinstance(error, OSError):
            error = InputError(said(error), mend_of(error))
        found.findings.append((folder, refused(folder, error)))
        return
    if not scans and holds_dicom(folder):
        found.entries.append(Entry(folder, place.with_name(f"{place.name}.nii.gz")))
        return
    found.findings += of_names(scans)
    found.entries += _in_folder(folder, scans, place, is_labels, found)
    for path in inside:
        if path.is_symlink() and path.is_dir() and here.is_relative_to(path.resolve()):
            what = "a link to a folder that holds it: a circle"
            found.findings.append((path, Finding("doubtful", what, "not followed")))
        elif path.is_symlink() and not path.exists() and path not in scans:
            what = "a link that leads nowhere or to itself"
            found.findings.append((path, Finding("refused", what, "mend or remove the link")))
        elif path.name.lower() == "cohort.csv":
            _follow(path, place, found)
        elif path.is_dir() and path not in scans:
            is_more = is_labels or bool(_LABEL_FOLDER.match(path.name))
            _walk(path, place / path.name, is_more, found)


def _in_folder(
    folder: Path, paths: list[Path], place: Path, is_labels: bool, found: Sweep
) -> list[Entry]:
    """What to open directly in a folder; `found` gains what its files are together."""
    if is_labels:
        return [Entry(path, _place(path, place), True) for path in paths]
    drawn = [path for path in paths if _LABEL_FILE.fullmatch(case_id(path))]
    scans = [path for path in paths if path not in drawn]
    if len(scans) != 1:
        drawn, scans = [], paths
    try:
        first, told = first_channels({case_id(path): path for path in scans}, folder)
    except InputError as error:
        found.findings.append((folder, refused(folder, error)))
    else:
        if told:
            found.findings.append((folder, Finding("doubtful", told, "is it CT in HU?")))
            scans = list(first.values())
    of_case = [Entry(path, _place(path, place), True, scans[0]) for path in drawn]
    return [Entry(path, _place(path, place)) for path in scans] + of_case


def _follow(path: Path, place: Path, found: Sweep) -> None:
    """The files that a cohort.csv names."""
    try:
        cases = read_cohort(path)
    except InputError as error:
        found.findings.append((path, refused(path, error)))
        return
    for case in cases:
        found.entries.append(Entry(case.image, _placed(case.image, path, place)))
        for labels in filter(None, (case.label, case.organ_pseudo)):
            found.entries.append(Entry(labels, _placed(labels, path, place), True, case.image))


def _placed(path: Path, cohort: Path, place: Path) -> Path:
    """Where the copy of a file goes that a cohort.csv names: as it lies beside the cohort.csv."""
    folder = path.parent
    if folder.is_relative_to(cohort.parent) and ".." not in folder.parts:
        return _place(path, place / folder.relative_to(cohort.parent))
    return _place(path, place / folder.name)


def _place(path: Path, folder: Path) -> Path:
    if suffix_of(path) in _WRITABLE:
        return folder / path.name
    return folder / f"{case_id(path)}.nii.gz"


def _once(found: Sequence[Entry]) -> list[Entry]:
    """Each file once; what a cohort.csv says of it counts."""
    kept: dict[Path, Entry] = {}
    for entry in found:
        key = entry.path.absolute()
        known = kept.setdefault(key, entry)
        if entry.scan is not None or (entry.is_labels and not known.is_labels):
            kept[key] = replace(entry, path=known.path, place=known.place)
    return list(kept.values())


def _paired(found: Sequence[Entry]) -> list[Entry]:
    """Label maps with the one scan of their case id, where there is one and only one."""
    scans: dict[str, list[Path]] = defaultdict(list)
    for entry in found:
        if not entry.is_labels:
            scans[case_id(entry.path)].append(entry.path)
    return [
        replace(entry, scan=scans[case_id(entry.path)][0])
        if entry.is_labels and entry.scan is None and len(scans[case_id(entry.path)]) == 1
        else entry
        for entry in found
    ]
