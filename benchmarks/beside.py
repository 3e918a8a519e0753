"""What is made beside a label map of 512×512×300 voxels: seconds and memory of each part.

Ellipsoids of the organs' sizes, one large tumour (80 mm radius) and 1,000 specks all over the body,
the worst that statistics meet. For comparison, the usual way to the tumours' parts: labelling their
box with scipy. Each part five times, in turn, in one process::

    OMP_NUM_THREADS=1 python -m benchmarks.beside
"""

from __future__ import annotations

import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tests.imaging.dicom_series import write_series

from flarekd.imaging.dicom_seg import write_seg
from flarekd.imaging.files import read_geometry
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import LABELS, TUMOR
from flarekd.report.preview import write_preview
from flarekd.volumetry import measure

SHAPE, SPACING_ZYX = (300, 512, 512), (1.0, 0.8, 0.8)
NAMES = {label.id: label.name for label in LABELS}
# centre (voxels) and half axes (mm), z, y, x
ORGANS = {
    1: ((200, 230, 170), (80, 75, 90)), 2: ((130, 330, 170), (55, 30, 28)),
    3: ((220, 320, 380), (50, 45, 35)), 4: ((170, 220, 260), (20, 20, 70)),
    5: ((150, 300, 270), (150, 11, 11)), 6: ((150, 300, 235), (150, 12, 14)),
    7: ((190, 310, 200), (14, 6, 10)), 8: ((190, 310, 320), (14, 6, 10)),
    9: ((160, 200, 190), (25, 18, 18)), 10: ((280, 310, 280), (30, 9, 9)),
    11: ((210, 200, 330), (45, 50, 60)), 12: ((140, 240, 220), (40, 18, 25)),
    13: ((135, 330, 360), (55, 30, 28)),
}  # fmt: skip


def main() -> None:
    """Print a line a part."""
    labels, hu = _labels(), _scan()
    geometry = Geometry(SHAPE[::-1], SPACING_ZYX[::-1])
    found = measure(labels, hu, SPACING_ZYX, NAMES)
    print(f"{len(found.tumors)} tumours, {np.count_nonzero(labels):,} labelled voxels")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "scan", hu)
        series = LabelMap(labels, read_geometry(folder / "scan"))
        case = LabelMap(labels, geometry)
        parts: dict[str, Callable[[], Any]] = {
            "statistics": lambda: measure(labels, hu, SPACING_ZYX, NAMES),
            "preview": lambda: write_preview(
                folder / "a.png", Volume(hu, geometry), case, NAMES, found
            ),
            "DICOM SEG": lambda: write_seg(folder / "a.dcm", folder / "scan", series, NAMES),
            "scipy label": lambda: _scipy_parts(labels),
        }
        took: dict[str, list[float]] = {part: [] for part in parts}
        for _ in range(5):
            for part, run in parts.items():
                began = time.perf_counter()
                run()
                took[part].append(time.perf_counter() - began)
        for part, seconds in took.items():
            middle = statistics.median(seconds)
            print(
                f"{part}: {min(seconds):.2f} / {middle:.2f} / {max(seconds):.2f} s,"
                f" {_peak_mib(parts[part]):.0f} MiB at its peak"
            )


def _labels() -> NDArray[np.uint8]:
    labels = np.zeros(SHAPE, np.uint8)
    for label, (centre, half) in ORGANS.items():
        _ellipsoid(labels, label, centre, half)
    _ellipsoid(labels, TUMOR, (100, 250, 250), (80, 80, 80))
    generator = np.random.default_rng(0)
    for _ in range(1000):
        centre = generator.uniform((20, 120, 90), (280, 390, 420))
        _ellipsoid(labels, TUMOR, centre, generator.uniform(1, 3) * np.ones(3))
    return labels


def _ellipsoid(labels: NDArray[np.uint8], label: int, centre: Any, half_mm: Any) -> None:
    centre, half = np.asarray(centre), np.asarray(half_mm) / SPACING_ZYX
    first = np.maximum(centre - half - 1, 0).astype(int)
    last = np.minimum(centre + half + 2, SHAPE).astype(int)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    z, y, x = (
        (np.arange(s.start, s.stop) - c) / h for s, c, h in zip(box, centre, half, strict=True)
    )
    inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= 1
    labels[box][inside] = label


def _scan() -> NDArray[np.int16]:
    plane = np.random.default_rng(1).integers(-1000, 200, SHAPE[1:], dtype=np.int16)
    return plane[None].repeat(SHAPE[0], axis=0)


def _scipy_parts(labels: NDArray[np.uint8]) -> int:
    box = ndimage.find_objects(labels)[TUMOR - 1]
    parts, count = ndimage.label(labels[box] == TUMOR, np.ones((3, 3, 3)))
    np.bincount(parts.ravel())
    ndimage.find_objects(parts)
    return int(count)


def _peak_mib(run: Callable[[], Any]) -> float:
    """What a part holds at most beside its input, as Python and numpy allocate it."""
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


if __name__ == "__main__":
    main()
