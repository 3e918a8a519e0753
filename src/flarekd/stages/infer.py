"""infer: scans + student → label maps on the scans' own grids, and report.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from flarekd import console
from flarekd.errors import InputError, counted
from flarekd.imaging.channels import first_channels
from flarekd.imaging.files import case_id
from flarekd.imaging.findings import Finding
from flarekd.imaging.listing import by_case, entries, is_scan, of_ids, of_names
from flarekd.imaging.sniff import deeper_series, holds_dicom
from flarekd.layout import CASE, Layout
from flarekd.ledger import DONE
from flarekd.segmenting import Options, segment_scans
from flarekd.standing import label_maps_in
from flarekd.training.ranks import is_spokesman
from flarekd.voice import Notes, Voice


def infer(inputs: Sequence[Path], model: Path, out: Path, options: Options | None = None) -> None:
    """Segment scans; a re-run does those that are missing or out of date.

    Args:
        inputs: Files, DICOM folders, or folders of such; a path with ``{case}`` in it stands for
            one scan a case.
        model: Student model file.
        out: Gets <case>.nii.gz and report.json.
        options: How.

    Raises:
        InputError: If there is no scan, the model cannot be used, or a label map would replace a
            scan.
        UsageError: If device or runtime are not there, the memory allowed is too little for
            anything, or another run writes to `out`.
        CasesFailedError: After the rest is written, if some scans failed.
    """
    options = options or Options()
    voice: Voice = console if is_spokesman() else Notes()
    scans = find_scans(inputs, voice)
    for case, path in scans.items():
        if path.resolve() == (out / f"{case}.nii.gz").resolve():
            raise InputError(f"the label map would replace {str(path)!r}", "choose another --out")
    options.beside.check(scans)
    unusable = ill_named(inputs)
    for name, why in unusable.items():
        voice.error(f"{name}: {why}")
    segment_scans(scans, model, out, options, unusable=unusable)


def find_scans(inputs: Sequence[Path], voice: Voice = console) -> dict[str, Path]:
    """Every scan that `inputs` name, by case id.

    Further channels beside a CT are none, and label maps that a run wrote beside scans neither.
    What is `ill_named` among others is left out.

    Args:
        inputs: As `infer` takes them.
        voice: Says what else is left out.

    Raises:
        InputError: If one is missing, holds no scan, has a name that cannot be a case id, or two
            scans share an id; or if nothing says whether there are further channels.
    """
    scans: dict[str, Path] = {}
    files = [path for path in inputs if path.is_file()]
    maps = {folder: label_maps_in(folder) for folder in {path.parent for path in files}}
    ours = [path for path in files if path.name in maps[path.parent]]
    if ours and len(ours) == len(inputs):
        raise InputError(
            f"{str(ours[0])!r} is a label map that a run wrote, no scan",
            f"give a scan; if it is one, move {ours[0].parent / DONE} away",
        )
    for entry in inputs:
        if entry in ours:  # FOLDER/*.nii.gz of a shell has them among the scans
            continue
        found = _scans_of(entry, voice)
        if not found:
            raise _no_scan(entry)
        both = sorted(scans.keys() & found.keys())
        if both:
            raise InputError(
                f"two scans are called {both[0]!r}: {scans[both[0]]} and {found[both[0]]}",
                "rename one of them, or give separate --out folders",
            )
        scans |= found
    wrong = of_ids(scans.items())
    if wrong:
        path, finding = wrong[0]
        raise InputError(f"{path.parent}: {finding.what}", finding.mend)
    return scans


def ill_named(inputs: Sequence[Path]) -> dict[str, str]:
    """Scans in the folders among `inputs` whose names cannot be case ids, and why."""
    return {
        ascii(str(path))[1:-1]: f"{finding.what} · {finding.mend}"
        for entry in inputs
        if entry.is_dir()
        for path, finding in _ill_named_in(entry)
    }


def _ill_named_in(folder: Path) -> list[tuple[Path, Finding]]:
    """One by one: together, they would be held against each other, too."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [wrong for path in inside for wrong in of_names([path]) if is_scan(path)]


def _no_scan(entry: Path) -> InputError:
    """What to say of an input that names no scan."""
    for path, finding in _ill_named_in(entry):
        return InputError(f"{path.parent}: {finding.what}", finding.mend)
    if label_maps_in(entry):
        return InputError(
            f"{str(entry)!r} holds label maps that a run wrote, and no scan",
            f"give scans; if these are some, move {entry / DONE} away",
        )
    series = deeper_series(entry)
    if series:
        return InputError(f"no scan in {str(entry)!r}: {_lie_deeper(entry, series)}")
    return InputError(
        f"no scan in {str(entry)!r}",
        "give .nii.gz, .mha, .nrrd or DICOM folders; where each case has a folder, "
        f"'{entry}/{CASE}/name.nii.gz'",
    )


def _lie_deeper(entry: Path, series: Path) -> str:
    pattern = "/".join("*" * len(series.relative_to(entry).parts))
    return f"DICOM series lie deeper in it, such as {str(series)!r} · give {entry}/{pattern}"


def _scans_of(entry: Path, voice: Voice) -> dict[str, Path]:
    """The scans that one of the inputs names."""
    if not entry.exists() and CASE in str(entry):
        return _a_folder_a_case(entry)
    if entry.is_dir():
        ours = label_maps_in(entry)
        paths = [p for p in entries(entry) if p.name not in ours and not of_names([p])]
        scans, told = first_channels(by_case(entry, paths), entry)
        for note in (told, *_left_out(entry, paths)):
            if note:
                voice.warn(note)
        return scans
    if not entry.exists():
        raise InputError(f"no such file or folder: {str(entry)!r}")
    return {case_id(entry): entry}


def _left_out(folder: Path, paths: Sequence[Path]) -> Iterator[str]:
    """What of a folder is DICOM and none of the scans that are taken from it."""
    if not paths:
        return
    if holds_dicom(folder):
        yield (
            f"{folder}: a DICOM series lies beside {counted(paths, 'scan')} and is left out · "
            "give it a folder of its own"
        )
    series = deeper_series(folder)
    if series:
        yield f"{folder}: {_lie_deeper(folder, series)} to have them, too"


def _a_folder_a_case(entry: Path) -> dict[str, Path]:
    """The scans that a path with ``{case}`` in it stands for."""
    depth = next(i for i, part in enumerate(entry.parts) if "{" in part)
    root = Path(*entry.parts[:depth])
    try:
        layout = Layout("/".join(entry.parts[depth:]))
    except ValueError as error:
        raise InputError(str(error)) from None
    if layout.has_masks:
        raise InputError(f"{str(entry)!r}: {{label}} stands for masks, here scans are wanted")
    found = {case: path for case, path in layout.find(root).items() if is_scan(path)}
    if not found:
        raise InputError(f"no scan fits {str(entry)!r}", f"{CASE} stands for the name of a case")
    return found
