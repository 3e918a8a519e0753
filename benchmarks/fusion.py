"""Fusion of one case in memory, against ten lines of numpy, and the verb's own time in shares.

`python -m benchmarks.fusion [--repeats 7] [--shape 300 512 512]`. The labels are shaped like an
abdomen: organs are ellipsoids, the partial label has five of them (group 3), the teacher found
three tumours. One thread; CPU seconds, medians, the ways in turn. First all ways are compared on
random volumes, where they must agree voxel by voxel. Files are .nii.gz in a temporary folder;
smooth ellipsoids compress better than people, so real files take longer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd import console
from flarekd.fusion import count, fuse, look_up, rules
from flarekd.fusion_checks import examine
from flarekd.imaging.files import read_labels, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.labels import GROUPS, ORGANS, TUMOR

ANNOTATED = GROUPS[3]
SPACING = (2.5, 0.8, 0.8)
Labels = NDArray[np.uint8]
Sources = tuple[Labels, NDArray[np.bool_], Labels]


def oracle(partial: Labels, tumor: NDArray[np.bool_], organs: Labels) -> Labels:
    """Eq. 3 and 4 as a script would have them."""
    first = partial.copy()
    if TUMOR not in ANNOTATED:
        first[tumor] = TUMOR
    fused = first.copy()
    for organ in ORGANS:
        if organ not in ANNOTATED:
            fused[(first == 0) & (organs == organ)] = organ
    return fused


def random_sources(shape: tuple[int, ...], seed: int) -> Sources:
    """White noise in all three."""
    generator = np.random.default_rng(seed)
    partial, organs = (generator.integers(0, top, shape).astype(np.uint8) for top in (15, 14))
    return partial, generator.random(shape) < 0.3, organs


def abdomen(shape: tuple[int, ...]) -> Sources:
    """Thirteen ellipsoids, five of them drawn by a person, and three tumours."""
    generator = np.random.default_rng(0)
    organs, tumor = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for organ in ORGANS:
        _ellipsoid(organs, organ, generator, 0.05, 0.15)
    for _ in range(3):
        _ellipsoid(tumor, True, generator, 0.02, 0.05)
    partial = np.where(np.isin(organs, list(ANNOTATED)), organs, 0).astype(np.uint8)
    return np.roll(partial, 1, 2), tumor, organs


def _ellipsoid(
    array: NDArray[Any], value: Any, generator: np.random.Generator, least: float, most: float
) -> None:
    center = generator.uniform(0.25, 0.75, 3)
    radii = generator.uniform(least, most, 3)
    z, y, x = (
        ((np.arange(size) / size - c) / r) ** 2
        for size, c, r in zip(array.shape, center, radii, strict=True)
    )
    array[z[:, None, None] + y[:, None] + x < 1] = value


def median_s(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of each way, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.process_time()
            way()
            taken[name].append(time.process_time() - began)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def main() -> None:
    """Compare, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    options = parser.parse_args()
    for seed in range(20):
        sources = random_sources((12, 40, 40), seed)
        if not np.array_equal(fuse(*sources, ANNOTATED), oracle(*sources)):
            raise SystemExit("fusion and the oracle differ")
    sources = abdomen(tuple(options.shape))
    how = rules(ANNOTATED)
    fused, counts = fuse(*sources, ANNOTATED), count(*sources)
    if not np.array_equal(fused, oracle(*sources)):
        raise SystemExit("fusion and the oracle differ")

    def check() -> object:
        nothing = np.zeros_like(counts)
        return examine(fused, counts, nothing, how, annotated=ANNOTATED, spacing_zyx=SPACING)

    seconds = median_s(
        {
            "fuse": lambda: fuse(*sources, ANNOTATED),
            "numpy oracle": lambda: oracle(*sources),
            "count combinations": lambda: count(*sources),
            "provenance": lambda: look_up(how.sources, *sources),
            "checks": check,
        },
        options.repeats,
    )
    seconds |= files(sources, fused)
    size = fused.size / 1e6
    rows = [[name, f"{s:.3f}", f"{size / s:.0f}"] for name, s in seconds.items()]
    console.table(f"One case of {size:.1f} Mvoxel", ["", "CPU s", "Mvoxel/s"], rows)


def files(sources: Sources, fused: Labels) -> dict[str, float]:
    """CPU seconds of reading three label maps and writing one."""
    depth, height, width = fused.shape
    geometry = Geometry((width, height, depth), SPACING[::-1])
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.nii.gz" for name in ("partial", "tumor", "organs")]
        for path, array in zip(paths, sources, strict=True):
            write_labels(path, LabelMap(array.astype(np.uint8), geometry))
        return median_s(
            {
                "read three files": lambda: [read_labels(path) for path in paths],
                "write one file": lambda: write_labels(
                    Path(folder) / "fused.nii.gz", LabelMap(fused, geometry)
                ),
            },
            3,
        )


if __name__ == "__main__":
    main()
