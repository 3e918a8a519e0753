"""What grouping has to know of a case, measured from its files: the one pass over all voxels.

Label files whose ids are another data set's, and masks of one class each, are written anew in
flarekd's ids here, and here only: what comes later reads files in flarekd's ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import counted, listed
from flarekd.extents import Extent, count_ids, measure_extents
from flarekd.foreign import IdMap, relabel
from flarekd.imaging import checks
from flarekd.imaging.files import read_geometry, read_grid, read_labels, why_torn, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.labels import IGNORE, NAMES, TUMOR
from flarekd.masks import Merger


class Mask(NamedTuple):
    """A file that shows one class.

    Attributes:
        path: The file.
        ours: The class, as ``foreign.our_id`` says it.
    """

    path: Path
    ours: int


@dataclass(frozen=True)
class Source:
    """One label file of a case.

    Attributes:
        kind: ``label`` or ``organ pseudo-label``.
        path: The file.
        ids: What its ids are, None where they are flarekd's, or where there are masks.
        written: Where it goes in flarekd's ids, None where its own are.
        masks: One file a class, below `path`; None where there is one file of all.
        lacking: Classes whose mask is not there, and should be.
    """

    kind: str
    path: Path
    ids: IdMap | None = None
    written: Path | None = None
    masks: tuple[Mask, ...] | None = None
    lacking: tuple[str, ...] = ()

    @property
    def used(self) -> Path:
        """The file in flarekd's ids."""
        return self.written or self.path

    @property
    def meaning(self) -> str:
        """What its ids are, in a word."""
        if self.masks is not None:
            return "masks"
        return self.ids.name if self.ids else "flarekd"


@dataclass(frozen=True)
class Files:
    """The files of one case, and the key that changes when they do (``ledger.stamp``)."""

    case: str
    image: Path
    sources: tuple[Source, ...]
    key: str

    @property
    def written(self) -> list[Path]:
        """Its label files that are written in flarekd's ids."""
        return [one.written for one in self.sources if one.written]

    def source(self, kind: str) -> Source | None:
        """Its label file, or its organ pseudo-label."""
        return next((one for one in self.sources if one.kind == kind), None)


def examine(files: Files) -> dict[str, Any]:
    """Measure the label files of a case.

    Returns:
        JSON values: ``size``, ``spacing``, ``height_mm``, ``notes`` (what was mended or is doubtful
        in the image), and by kind of source ``extents`` (id to ``Extent``), ``far_corner_mm``,
        ``doubt`` and ``notes``; ``left_open`` (voxels) where a data set has an ignore label, and
        ``overlaps`` (a class over another to voxels) where masks overlap. Where a file cannot be
        used, nothing but ``refused``, which says why, and ``far_corner_mm`` or ``ids`` (id to
        voxels) where those are the reason.

    Raises:
        InputError: If a file cannot be read, or holds what are no labels.
    """
    geometry, notes = read_grid(files.image)
    told = [f"image: {note}" for note in notes]
    # told and not refused: once the file is mended, later stages go on from this cohort
    told += [f"image: {torn}"] if (torn := why_torn(files.image)) else []
    depth, _, _ = geometry.shape_zyx
    facts: dict[str, Any] = {
        "size": list(geometry.size_xyz),
        "spacing": list(geometry.spacing_xyz),
        "height_mm": round(depth * geometry.spacing_zyx[0], 3),
        "notes": told,
    }
    for source in files.sources:
        found = _measure(source, geometry)
        if "refused" in found:
            return found
        facts[source.kind] = found
    return facts


def extents(found: Mapping[str, Any]) -> dict[int, Extent]:
    """The extents of one source of ``examine``, as objects again."""
    return {
        int(label): Extent(**{**values, "cut_off": tuple(values["cut_off"])})
        for label, values in found["extents"].items()
    }


def _measure(source: Source, scan: Geometry) -> dict[str, Any]:
    if source.masks is not None:
        return _measure_masks(source, source.masks, scan)
    own = read_geometry(source.path)
    if refusal := _off_grid(source.path, source.kind, scan, own):
        return refusal
    labels = read_labels(source.path)
    counts = count_ids(labels.array).sum(axis=0).tolist()
    wrong = _wrong_ids({label: count for label, count in enumerate(counts) if count}, source)
    if wrong:
        return wrong
    array, doubt = labels.array, ""
    if source.ids is not None and source.written is not None:
        array, doubt = relabel(array, source.ids, scan.spacing_zyx[2])
        _write(source.written, array, labels.geometry)
    return {
        "far_corner_mm": _far_mm(scan, own),
        "doubt": doubt,
        "notes": [f"{source.kind}: {note}" for note in labels.notes],
        **_extents(array, scan),
    }


def _measure_masks(source: Source, masks: Sequence[Mask], scan: Geometry) -> dict[str, Any]:
    """Make one label map of masks, write and measure it."""
    if source.lacking:
        names = ", ".join(source.lacking)
        return {"refused": f"{source.path.name}: {source.kind}: no mask of {names}"}
    merger = Merger(scan.shape_zyx, [mask.ours for mask in masks])
    notes: list[str] = []
    far_mm = 0.0
    for mask in masks:
        own = read_geometry(mask.path)
        if refusal := _off_grid(mask.path, source.kind, scan, own):
            return refusal
        labels = read_labels(mask.path)
        held = checks.present(labels.array)
        if len(held) > 1:
            told = f"{source.kind}: holds the ids {held}, a mask holds one"
            return {"refused": f"{mask.path.name}: {told}"}
        merger.add(labels.array, mask.ours)
        far_mm = max(far_mm, _far_mm(scan, own))
        notes += [f"{source.kind}: {mask.path.name}: {note}" for note in labels.notes]
    array, overlaps, doubts = merger.merge(scan.spacing_zyx[2])
    assert source.written is not None  # masks are always written as one label map
    _write(source.written, array, scan)
    over = {f"{upper} over {lower}": voxels for (upper, lower), voxels in overlaps.items()}
    if over:
        largest = sorted(over.items(), key=lambda one: -one[1])
        pairs = [f"{pair} in {counted(voxels, 'voxel')}" for pair, voxels in largest]
        notes.append(f"{source.kind}: masks overlap: {listed(pairs)}")
    facts = {"far_corner_mm": far_mm, "doubt": listed(doubts, between="; "), "notes": notes}
    return {**facts, "overlaps": over, **_extents(array, scan)}


def _off_grid(path: Path, kind: str, scan: Geometry, own: Geometry) -> dict[str, Any]:
    """Why a file does not lie on its scan; empty where it does."""
    for finding in checks.of_pair(scan, own):
        far_mm = _far_mm(scan, own)
        return {"refused": f"{path.name}: {kind}: {finding}", "far_corner_mm": far_mm}
    return {}


def _far_mm(scan: Geometry, own: Geometry) -> float:
    return round(scan.far_corner_mm(own), 3)


def _write(path: Path, array: NDArray[np.uint8], geometry: Geometry) -> None:
    write_labels(path, LabelMap(array, geometry), dict(enumerate(NAMES[1:], start=1)))


def _extents(array: NDArray[np.uint8], scan: Geometry) -> dict[str, Any]:
    measured = measure_extents(array, scan.spacing_zyx)
    left_open = measured.pop(IGNORE, None)
    found: dict[str, Any] = {"left_open": left_open.voxels} if left_open else {}
    found["extents"] = {str(label): asdict(one) for label, one in measured.items()}
    return found


def _wrong_ids(present: Mapping[int, int], source: Source) -> dict[str, Any]:
    """Why a file with these ids and voxels cannot be used; empty where it can."""
    if source.ids is not None:
        unknown = source.ids.unknown(present)
        told = f"are not among those of {source.ids.name!r}"
    else:
        highest = TUMOR if source.kind == "label" else TUMOR - 1
        unknown = {label: count for label, count in present.items() if label > highest}
        told = f"are not among 1..{highest}"
    if not unknown:
        return {}
    voxels = ", ".join(f"{count:,}" for count in unknown.values())
    return {
        "refused": f"{source.kind} ids {sorted(unknown)} {told} ({voxels} voxels) · "
        "say in groups.yaml what they are",
        "ids": {str(label): count for label, count in unknown.items()},
    }
