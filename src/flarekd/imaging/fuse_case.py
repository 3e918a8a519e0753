"""One case fused, from files to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekd.cohort import Case
from flarekd.components import find_components
from flarekd.errors import InputError
from flarekd.fusion import IGNORED, SOURCES, Strategy, contradictions, count, look_up, rules, thick
from flarekd.fusion_checks import Facts, examine
from flarekd.imaging import checks
from flarekd.imaging.files import read_geometry, read_labels, write_labels
from flarekd.imaging.findings import admitted
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.labels import IGNORE, TUMOR
from flarekd.selection import Dropped

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Job:
    """What is fused of one case, and where it goes.

    Attributes:
        case: Its row of the cohort.
        tumor: Its tumour pseudo-label, None where a person has drawn its tumours.
        out: The fused label to write.
        sources: The volume of sources to write, None where nobody wants it.
        strategy: Of the fusion.
        ignore_mm: Radius from which contradictions are left open; None leaves none.
        dropped: What rules take out of the pseudo-label.
        sizes: Voxels of each component of it, where something is taken out.
        key: Changes when the result would.
    """

    case: Case
    tumor: Path | None
    out: Path
    sources: Path | None
    strategy: Strategy
    ignore_mm: float | None
    dropped: tuple[Dropped, ...]
    sizes: Mapping[int, float | None]
    key: str

    @property
    def outputs(self) -> list[Path]:
        """The files that it writes."""
        return [self.out, self.sources] if self.sources else [self.out]


def fuse_one(job: Job) -> Facts:
    """Fuse one case and write it.

    Raises:
        InputError: If a source cannot be read, does not lie on the scan, or holds ids that it may
            not.
    """
    case = job.case
    first = case.label or case.organ_pseudo or job.tumor
    if first is None:
        raise InputError("no label of any kind", "give it a label or an organ pseudo-label")
    scan = read_geometry(case.image)
    base = _on_scan(first, scan)
    geometry = base.geometry
    partial, organs = (
        base.array if path == first else _array(path, scan)
        for path in (case.label, case.organ_pseudo)
    )
    tumor = _tumor(job.tumor, base.array if job.tumor == first else _array(job.tumor, scan))
    if job.dropped:
        _take_out(tumor, job)
    # what nobody has annotated stays open: no source is asked there
    unknown = partial == IGNORE
    if unknown.any():
        partial, tumor, organs = (one * ~unknown for one in (partial, tumor, organs))
    how = rules(case.annotated, job.strategy)
    try:
        counts = count(partial, tumor, organs)
    except ValueError as error:
        raise InputError(str(error), "correct the label files") from error
    fused: Array = look_up(how.labels, partial, tumor, organs)
    sources: Array | None = None
    if job.sources:
        sources = look_up(how.sources, partial, tumor, organs)
    ignored = np.zeros_like(counts)
    if job.ignore_mm is not None and case.label and case.organ_pseudo:
        against = look_up(contradictions(case.annotated), partial, tumor, organs)
        unknown |= thick(against, geometry.spacing_zyx, job.ignore_mm)
    if unknown.any():
        ignored = count(partial[unknown][None], tumor[unknown][None], organs[unknown][None])
        fused[unknown] = IGNORE
        if sources is not None:
            sources[unknown] = IGNORED
    facts = examine(
        fused,
        counts,
        ignored,
        how,
        annotated=case.annotated,
        spacing_zyx=geometry.spacing_zyx,
    )
    if job.sources and sources is not None:
        names = dict(enumerate(SOURCES[1:], 1))
        write_labels(job.sources, LabelMap(sources, geometry), names)
    write_labels(job.out, LabelMap(fused, geometry))
    return facts


def _take_out(tumor: NDArray[np.bool_], job: Job) -> None:
    """Take dropped components out of a tumour pseudo-label, which changes."""
    everywhere = tuple(slice(0, size) for size in tumor.shape)
    z, y, x = everywhere
    parts = find_components(tumor.view(np.uint8), 1, (z, y, x))
    if [part.voxels for part in parts] != [job.sizes[n] for n in sorted(job.sizes)]:
        raise InputError(
            f"{job.tumor} is not the pseudo-label that its figures are of",
            "run `flarekd pseudo-tumor --quality` again",
        )
    for one in job.dropped:
        if one.component is not None:
            part = parts[one.component - 1]
            tumor[part.box] &= ~part.mask()


def _on_scan(path: Path, scan: Geometry) -> LabelMap:
    labels = read_labels(path)
    admitted(path, checks.of_pair(scan, labels.geometry))
    return labels


def _array(path: Path | None, scan: Geometry) -> Array:
    """The voxels of one source on the scan's grid; empty where there is none."""
    return np.zeros(scan.shape_zyx, np.uint8) if path is None else _on_scan(path, scan).array


def _tumor(path: Path | None, found: Array) -> NDArray[np.bool_]:
    """Where a tumour pseudo-label has tumour: 14, or 1 as a mask of anybody's has it."""
    ids = checks.present(found)
    if ids not in ([], [TUMOR], [1]):
        raise InputError(
            f"{path}: tumour pseudo-label holds ids {ids}, and only {TUMOR} is tumour (or 1 alone)",
            f"give a folder of tumour masks, such as `flarekd pseudo-tumor` writes; set all but "
            f"tumour to 0 and that to {TUMOR}",
        )
    tumor: NDArray[np.bool_] = found != 0
    return tumor
