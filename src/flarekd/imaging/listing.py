"""The scans of a folder by case id, and what is wrong with their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from flarekd.case_ids import on_disk, why_no_case_id
from flarekd.errors import InputError
from flarekd.imaging.findings import Finding
from flarekd.imaging.sniff import holds_dicom

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
"""What a scan's name may end in, in any case."""


def suffix_of(path: Path) -> str:
    """The ending that says the format, empty where it is none of ours.

    >>> suffix_of(Path("a.b.NII.GZ"))
    '.nii.gz'
    """
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def case_id(path: Path) -> str:
    """The case a file or folder belongs to: its name without the ending and FLARE's ``_0000``.

    >>> case_id(Path("imagesTr/FLARE23_0123_0000.nii.gz"))
    'FLARE23_0123'
    """
    suffix = suffix_of(path)
    name = path.name[: -len(suffix)] if suffix else path.name
    return name.removesuffix("_0000") or name


def list_scans(folder: Path) -> dict[str, Path]:
    """Find the scans of a folder: files by their ending, and subfolders that hold DICOM files.

    A folder that itself holds a DICOM series is one scan. Names that begin with a dot are passed
    over: they are what a killed run or a file manager left.

    Args:
        folder: Looked into one level deep.

    Returns:
        Case id to file or DICOM folder, sorted by case id; empty where there is none.

    Raises:
        InputError: If the folder is not there or cannot be read, a name cannot be a case id, or two
            scans have the same case id (upper or lower case do not tell them apart).
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", "check the path")
    return by_case(folder, entries(folder))


def by_case(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """As `list_scans`, of those that `entries` found.

    Args:
        folder: Where they were found.
        paths: All of them or some; where there are none, it may be a DICOM series itself.
    """
    wrong = of_names(paths)
    if wrong:
        path, finding = wrong[0]
        more = f" ({len(wrong) - 1} more such names)" if len(wrong) > 1 else ""
        raise InputError(f"{path.parent}: {finding.what}{more}", finding.mend)
    if not paths and holds_dicom(folder):
        return {case_id(folder.resolve()): folder}
    return dict(sorted((case_id(path), path) for path in paths))


def deeper(folder: Path) -> str:
    """How to mend a folder without scans: they may lie in folders of their own."""
    deep = next((p for p in sorted(folder.glob("*/*")) if suffix_of(p) and p.name[0] != "."), None)
    if deep is None:
        return "give a folder of .nii.gz, .mha or .nrrd files"
    return (
        f"there is {str(deep.relative_to(folder))!r}: where each case has a folder say so in "
        f"groups.yaml (images: '{{case}}/{deep.name}')"
    )


def entries(folder: Path) -> list[Path]:
    """The scans directly in a folder, sorted by name, whatever they are called.

    A subfolder that may not be read is among them: it fails as one scan, and the others go on.

    Raises:
        InputError: If the folder cannot be read.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        mend = "may you read it? check its permissions"
        raise InputError(f"{folder}: cannot be read: {error.strerror}", mend) from error
    return [path for path in inside if is_scan(path)]


def is_scan(path: Path) -> bool:
    """Whether a file's name ends as a scan's does, or a folder holds DICOM files."""
    if not path.is_dir():
        return bool(suffix_of(path))
    try:
        return holds_dicom(path)
    except OSError:
        return True


def of_names(paths: Iterable[Path]) -> list[tuple[Path, Finding]]:
    """Names that cannot be case ids, and those that mean the same case as one before."""
    return of_ids((case_id(path), path) for path in paths)


def of_ids(named: Iterable[tuple[str, Path]]) -> list[tuple[Path, Finding]]:
    """Case ids that cannot be, and those that mean the same case as one before.

    Upper and lower case, and the ways to write an accent, do not tell two cases apart: on many
    disks one's results would replace the other's.

    Args:
        named: Each with the file or folder that it is the name of.
    """
    found = []
    seen: dict[str, tuple[str, Path]] = {}
    for case, path in named:
        why = why_no_case_id(case)
        if why:
            found.append((path, Finding("refused", f"name {path.name!r} {why}", "rename it")))
            continue
        same, other = seen.setdefault(on_disk(case), (case, path))
        if other is not path:
            what = f"{other.name} and {path.name} are both case {case!r}"
            if same != case:
                what = f"{other.name} and {path.name} are one name on many disks"
            found.append((path, Finding("refused", what, "keep one of the two, or rename it")))
    return found


def is_nifti(path: Path) -> bool:
    """Whether a scan is read here; reading others loads SimpleITK, some 90 MB."""
    return suffix_of(path).startswith(".nii") and not path.is_dir()
