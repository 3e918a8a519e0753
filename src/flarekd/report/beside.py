"""What people want beside the mask: numbers, a picture, a DICOM SEG."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from flarekd.errors import InputError
from flarekd.imaging.volume import Geometry, LabelMap, Shape, Volume
from flarekd.labels import tumor_of
from flarekd.memory import give_back_freed_memory

_VOXEL_MEASURED = 3
"""Bytes a voxel while statistics are measured or a slice is chosen, where the tumour class is
scattered all over the scan: its runs, or a mask."""

_PICTURE = 48 << 20
"""Bytes while a picture is drawn, whatever the scan."""

TABLES = ("statistics.csv", "tumours.csv")
"""What `Beside.finish` writes of the statistics of all cases."""

ENDINGS = {"statistics": ".statistics.json", "preview": ".png", "dicom_seg": ".seg.dcm"}
"""What is written beside a label map, by the name of its part of `Beside`."""


@dataclass(frozen=True)
class Beside:
    """What to write beside each label map.

    Attributes:
        statistics: Volumes, mean HU and tumours, ``<case>.statistics.json`` and two tables.
        preview: ``<case>.png``.
        dicom_seg: ``<case>.seg.dcm``, for scans that are DICOM folders.
    """

    statistics: bool = False
    preview: bool = False
    dicom_seg: bool = False

    @property
    def needs_scan(self) -> bool:
        """Whether the scan is needed once its labels are there."""
        return self.statistics or self.preview

    def takes(self, shape: Shape, classes: int) -> int:
        """Bytes that writing it all takes at most, one after another, beside scan and labels.

        Args:
            shape: Of the scan (z, y, x).
            classes: How many there may be in it.
        """
        seg = 0
        if self.dicom_seg:
            from flarekd.imaging.dicom_seg import working_bytes

            seg = working_bytes(shape, classes)
        measured = _VOXEL_MEASURED * prod(shape) * self.needs_scan
        return max(measured, _PICTURE * self.preview, seg)

    def rehearse(self, names: Mapping[int, str]) -> None:
        """Write it all of a case of few voxels, so that what it takes is loaded."""
        if not self.parts:
            return
        geometry = Geometry((8, 8, 8), (1.0, 1.0, 1.0))
        labels = np.zeros(geometry.shape_zyx, np.uint8)
        labels[2:6, 2:6, 2:6] = tumor_of(names) or max(names)
        scan, found = Volume(labels.astype(np.int16), geometry), LabelMap(labels, geometry)
        with TemporaryDirectory() as name:
            out = Path(name)
            plain = replace(self, dicom_seg=False)
            plain.write(out, "case", out, scan=scan, labels=found, names=names)
        if self.dicom_seg:
            from flarekd.imaging.dicom_seg import rehearse

            rehearse()

    @staticmethod
    def everything(out: Path, case: str) -> list[Path]:
        """The label map of a case and all that may lie beside it, asked for or not."""
        return [out / f"{case}{ending}" for ending in (".nii.gz", *ENDINGS.values())]

    @classmethod
    def forget(cls, out: Path, case: str) -> None:
        """Remove what an earlier run wrote of a case, the tables too where they have rows of it."""
        has_rows = (out / f"{case}{ENDINGS['statistics']}").exists()
        for path in (*(cls.tables(out) if has_rows else ()), *cls.everything(out, case)):
            path.unlink(missing_ok=True)

    @staticmethod
    def tables(out: Path) -> list[Path]:
        """The tables that hold rows of all cases."""
        return [out / name for name in TABLES]

    @staticmethod
    def shared(out: Path) -> list[Path]:
        """All files that may lie beside the labels of all cases, asked for or not."""
        return [out / name for name in (*TABLES, "labels.txt", "labels.ctbl")]

    @property
    def parts(self) -> list[str]:
        """The names of what is asked for."""
        return [name for name, is_asked in asdict(self).items() if is_asked]

    @classmethod
    def of(cls, parts: Collection[str]) -> Beside:
        """What asks for these alone."""
        return cls(**dict.fromkeys(parts, True))

    def check(self, scans: Mapping[str, Path]) -> None:
        """Say before any work is done what cannot be written.

        Raises:
            UsageError: If highdicom is needed and not installed.
            InputError: If a scan is no DICOM folder and DICOM SEG is asked for.
        """
        if not self.dicom_seg:
            return
        from flarekd.imaging.dicom_seg import require_highdicom

        require_highdicom()
        others = [path for path in scans.values() if not path.is_dir()]
        if others:
            raise InputError(
                f"DICOM SEG lies on a DICOM series, {others[0]} is a file",
                "give the DICOM folder, or leave out --dicom-seg",
            )

    def write(
        self,
        out: Path,
        case: str,
        source: Path,
        *,
        scan: Volume | None,
        labels: LabelMap,
        names: Mapping[int, str],
    ) -> None:
        """Write the files of a case.

        Args:
            out: Folder of the label maps.
            case: Its id.
            source: What the scan was read from.
            scan: Itself, where `needs_scan`.
            labels: On the scan's grid.
            names: Id to name, background left out.
        """
        statistics = None
        if scan is not None and self.needs_scan:
            from flarekd.volumetry import measure

            geometry = labels.geometry
            statistics = measure(
                labels.array, scan.array, geometry.spacing_zyx, names, affine=geometry.affine_zyx()
            )
        if statistics is not None and self.statistics:
            from flarekd.report.statistics import write_statistics

            write_statistics(out, case, statistics)
        if scan is not None and self.preview:
            from flarekd.report.preview import write_preview

            write_preview(out / f"{case}.png", scan, labels, names, statistics)
        if self.dicom_seg:
            from flarekd.imaging.dicom_seg import write_seg

            give_back_freed_memory()  # the picture's, too, which only the garbage collector frees
            write_seg(out / f"{case}.seg.dcm", source, labels, names)

    def finish(self, out: Path, cases: Sequence[str], names: Mapping[int, str]) -> None:
        """Write what a folder has once: label tables, and the tables of statistics.

        Args:
            out: Folder of the label maps.
            cases: That have rows in the tables, if they have statistics.
            names: Id to name, background left out.
        """
        from flarekd.report.label_table import write_label_tables

        write_label_tables(out, names)
        if self.statistics:
            from flarekd.report.statistics import write_tables

            write_tables(out, cases)
