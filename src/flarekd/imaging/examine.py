"""What grouping has to know of a case, measured from its files: the one pass over all voxels.

Label files whose ids are another data set's are written anew in flarekd's ids here, and here only:
what comes later reads files in flarekd's ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flarekd.extents import Extent, count_ids, measure_extents
from flarekd.foreign import IdMap, relabel
from flarekd.imaging import checks
from flarekd.imaging.files import read_geometry, read_grid, read_labels, refuse_torn, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.labels import NAMES, TUMOR


@dataclass(frozen=True)
class Source:
    """One label file of a case.

    Attributes:
        kind: ``label`` or ``organ pseudo-label``.
        path: The file.
        ids: What its ids are, None where they are flarekd's.
        written: Where it goes in flarekd's ids, None where `ids` is.
    """

    kind: str
    path: Path
    ids: IdMap | None = None
    written: Path | None = None

    @property
    def used(self) -> Path:
        """The file in flarekd's ids."""
        return self.written or self.path


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
        ``doubt`` and ``notes``. Where a file cannot be used, nothing but ``refused``, which says
        why, and ``far_corner_mm`` or ``ids`` (id to voxels) where those are the reason.

    Raises:
        InputError: If a file cannot be read, or holds what are no labels.
    """
    geometry, notes = read_grid(files.image)
    refuse_torn(files.image)
    depth, _, _ = geometry.shape_zyx
    facts: dict[str, Any] = {
        "size": list(geometry.size_xyz),
        "spacing": list(geometry.spacing_xyz),
        "height_mm": round(depth * geometry.spacing_zyx[0], 3),
        "notes": [f"image: {note}" for note in notes],
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
    own = read_geometry(source.path)
    far_mm = round(scan.far_corner_mm(own), 3)
    for finding in checks.of_pair(scan, own):
        return {
            "refused": f"{source.path.name}: {source.kind}: {finding}",
            "far_corner_mm": far_mm,
        }
    labels = read_labels(source.path)
    counts = count_ids(labels.array).sum(axis=0).tolist()
    wrong = _wrong_ids({label: count for label, count in enumerate(counts) if count}, source)
    if wrong:
        return wrong
    array, doubt = labels.array, ""
    if source.ids is not None and source.written is not None:
        array, doubt = relabel(array, source.ids, scan.spacing_zyx[2])
        names = dict(enumerate(NAMES[1:], start=1))
        write_labels(source.written, LabelMap(array, labels.geometry), names)
    measured = measure_extents(array, scan.spacing_zyx)
    return {
        "far_corner_mm": far_mm,
        "doubt": doubt,
        "notes": [f"{source.kind}: {note}" for note in labels.notes],
        "extents": {str(label): asdict(one) for label, one in measured.items()},
    }


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
