"""What of a file can be put right without guessing, for a copy; the file itself stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flarekd.errors import InputError
from flarekd.imaging import checks
from flarekd.imaging.files import read_geometry, read_labels, read_stored, read_volume
from flarekd.imaging.findings import Finding, refused
from flarekd.imaging.orientation import to_canonical
from flarekd.imaging.volume import LabelMap, Volume

AIR_HU = -1024


@dataclass(frozen=True, eq=False)
class Examined:
    """A file that was opened.

    Attributes:
        findings: What is amiss, refusals among them.
        repaired: What a copy should hold, None where nothing is to be mended or not all can be.
        changes: What sets it apart from the file.
    """

    findings: tuple[Finding, ...] = ()
    repaired: Volume | None = None
    changes: tuple[str, ...] = ()


def examine_scan(path: Path) -> Examined:
    """Open a scan as every verb does, and say what is amiss.

    Args:
        path: A file or DICOM folder.
    """
    try:
        volume = read_volume(path)
    except InputError as error:
        return _filled(path, refused(path, error))
    findings = (*volume.notes, *checks.of_scan(volume.array))
    return _mended(findings, volume)


def examine_labels(path: Path, scan: Path | None) -> Examined:
    """Open a label map as every verb does, and say what is amiss.

    Args:
        path: A file.
        scan: The scan it should lie on; one that cannot be read has its own findings.
    """
    try:
        labels = read_labels(path)
    except InputError as error:
        return Examined((refused(path, error),))
    findings = (*labels.notes, *checks.of_labels(labels.array))
    try:
        image = read_geometry(scan) if scan is not None else labels.geometry
    except InputError:
        image = labels.geometry
    apart = checks.of_pair(image, labels.geometry)
    if apart and checks.is_slip(image, labels.geometry):
        change = f"{apart[0].what}: the scan's own grid is taken"
        mended = _mended(findings, LabelMap(labels.array, image), change)
        return replace(mended, findings=(*findings, *apart))
    return _mended((*findings, *apart), labels)


def _mended(findings: tuple[Finding, ...], volume: Volume, *changes: str) -> Examined:
    """What a copy would hold, where all that is amiss is mended and no doubt is lost with it."""
    changes = (*(str(one) for one in findings if one.severity == "mended"), *changes)
    # what a copy's own header, or its voxels, will say again
    lasting = [*checks.of_grid(volume.geometry), *_of_voxels(volume)]
    others = [one for one in findings if one.severity != "mended" and one not in lasting]
    if not changes or others:
        return Examined(findings)
    return Examined(findings, volume, changes)


def _of_voxels(volume: Volume) -> list[Finding]:
    if isinstance(volume, LabelMap):
        found = checks.of_labels(volume.array)
    else:
        found = checks.of_scan(volume.array)
    return [finding for finding in found if finding.severity != "refused"]


def _filled(path: Path, why: Finding) -> Examined:
    """NaN and infinity become air where they are padding: no body voxel is guessed."""
    try:
        stored = read_stored(path)
    except InputError:
        return Examined((why,))
    holes = ~np.isfinite(stored.array)
    if not holes.any() or holes.all() or not _touch_the_border(holes):
        return Examined((why,))
    array = np.where(holes, AIR_HU, stored.array).astype(np.float32)
    volume = Volume(to_canonical(array, stored.geometry), stored.geometry)
    change = f"{int(holes.sum()):,} voxels of padding that were no numbers are {AIR_HU} HU"
    mended = _mended((*stored.notes, *checks.of_scan(volume.array)), volume, change)
    if mended.repaired is None:
        return replace(mended, findings=(why, *mended.findings))
    mend = "all of it is padding at the border: `flarekd check --fix DIR` makes it air"
    return replace(mended, findings=(replace(why, mend=mend), *mended.findings))


def _touch_the_border(holes: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> bool:
    from scipy import ndimage

    components, count = ndimage.label(holes)
    outer = [np.take(components, end, axis) for axis in range(3) for end in (0, -1)]
    at_border = np.unique(np.concatenate([plane.ravel() for plane in outer]))
    return bool(np.count_nonzero(at_border) == count)
