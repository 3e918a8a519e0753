"""The training store against what it replaces: one random patch, read from each.

`python -m benchmarks.store --cohort DIR [--scan FILE ...] --work DIR`, the cohort as
`flarekd phantom` writes it. Every format holds the same voxels on the same grid and gives image and
labels as new arrays. Rounds alternate between the formats; the files were read before, so that
the disk is not what is timed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd import config, console
from flarekd.imaging import store
from flarekd.imaging.files import (
    list_scans,
    read_geometry,
    read_labels,
    read_volume,
    write_labels,
    write_volume,
)
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.training.forecast import forecast
from flarekd.training.prepare import Grid, Source, prepare

Slices = tuple[slice, slice, slice]
Arrays = tuple[NDArray[Any], NDArray[Any]]
Reader = Callable[[Slices], Arrays]
SLOW_READS = 3
"""Reads a round of whole .nii.gz files, which take a thousand times as long."""


@dataclass(frozen=True)
class Formats:
    """One case in each format: how a crop is read, and bytes on disk."""

    shape: tuple[int, ...]
    readers: dict[str, Reader]
    disk: dict[str, int]


def main() -> None:
    """Measure for the grids of both networks and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--scan", type=Path, nargs="*", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--reads", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    sources = list(find_sources(options.cohort, options.scan, options.work))
    paper = config.load(config.builtin("flare23"))
    teacher, student = paper.teacher, paper.student
    flat = Grid((0.0, *teacher.spacing), teacher.patch, tumor_only=True)
    deep = Grid(student.spacing, student.patch, tumor_only=False)
    measure("student", sources, deep, [student.oversize, student.patch], options)
    measure("teacher", sources, flat, [teacher.oversize, teacher.patch], options)


def find_sources(cohort: Path, scans: Sequence[Path], work: Path) -> Iterator[Source]:
    """Scans with complete labels; further scans get an empty label map."""
    for images, labels in (
        ("imagesTr", "truth"),
        ("imagesUnlabeled", "truth"),
        ("imagesVal", "labelsVal"),
    ):
        found = list_scans(cohort / labels)
        for case, image in list_scans(cohort / images).items():
            yield Source(case, image, found[case])
    for index, scan in enumerate(scans):
        geometry = read_geometry(scan)
        path = work / f"scan_{index}.nii.gz"
        write_labels(path, LabelMap(np.zeros(geometry.shape_zyx, np.uint8), geometry))
        yield Source(f"scan_{index}", scan, path)


def measure(
    role: str,
    sources: Sequence[Source],
    grid: Grid,
    patches: Sequence[tuple[int, int, int]],
    options: argparse.Namespace,
) -> None:
    """Make the store and its peers, time reads of each patch, print."""
    folder = options.work / role
    told = forecast([source.image for source in sources], grid.spacing)
    began = time.perf_counter()
    cases, failed = prepare(sources, folder / "store", grid, 1, lambda *_: None)
    made_s = time.perf_counter() - began
    if failed:
        raise SystemExit(str(failed))
    formats = [write_formats(case, folder) for case in cases]
    disk = {name: sum(one.disk[name] for one in formats) for name in formats[0].disk}
    files = [folder / "store" / f"{case.case}{store.SUFFIX}" for case in cases]
    began = time.perf_counter()
    if not all(store.verify(path) for path in files):
        raise SystemExit("a file is damaged")
    checked_s = time.perf_counter() - began
    for patch in patches:
        times = time_reads(formats, patch, options.reads, options.rounds)
        rows = [
            [name, *(f"{value:.2f}" for value in spread(ms)), f"{disk[name] / 1e6:.0f}"]
            for name, ms in times.items()
        ]
        title = f"{role}, patch {patch}: ms a read, one thread, {len(cases)} cases"
        console.table(title, ["format", "min", "median", "max", "MB on disk"], rows)
        ours = np.median(times["store"])
        ratios = (f"{name} {np.median(ms) / ours:.2f}" for name, ms in times.items())
        console.result("time of each over the store's: " + ", ".join(ratios))
    voxels = sum(float(np.prod(case.shape_zyx)) for case in cases)
    console.result(
        f"made in {made_s:.1f} s by one process (forecast {told.seconds:.1f} s), "
        f"{disk['store'] / voxels:.2f} bytes a voxel (forecast "
        f"{told.stored_bytes / voxels:.2f}), checked at {disk['store'] / checked_s / 1e6:.0f} MB/s"
    )


def write_formats(case: store.StoredCase, folder: Path) -> Formats:
    """Write a stored case in the other formats."""
    whole = tuple(slice(0, size) for size in case.shape_zyx)
    image, labels = case.read(whole)
    z, y, x = case.shape_zyx
    dz, dy, dx = case.spacing_zyx
    geometry = Geometry((x, y, z), (dx, dy, dz))
    npy = folder / f"{case.case}_image.npy", folder / f"{case.case}_labels.npy"
    nii = folder / f"{case.case}_image.nii.gz", folder / f"{case.case}_labels.nii.gz"
    for path, array in zip(npy, (image, labels), strict=True):
        np.save(path, array)
    write_volume(nii[0], Volume(image, geometry))
    write_labels(nii[1], LabelMap(labels, geometry))
    kept = [np.load(path, mmap_mode="r") for path in npy]

    def read_nii(slices: Slices) -> Arrays:
        return read_volume(nii[0]).array[slices].copy(), read_labels(nii[1]).array[slices].copy()

    def read_npy(slices: Slices) -> Arrays:
        first, second = (np.array(np.load(path, mmap_mode="r")[slices]) for path in npy)
        return first, second

    def read_kept(slices: Slices) -> Arrays:
        return np.array(kept[0][slices]), np.array(kept[1][slices])

    stored = folder / "store" / f"{case.case}{store.SUFFIX}"
    readers = {
        "nii.gz": read_nii,
        "npy, opened for each read": read_npy,
        "npy, kept open": read_kept,
        "store": case.read,
    }
    sizes = [sum(path.stat().st_size for path in paths) for paths in (nii, npy, npy, (stored,))]
    return Formats(image.shape, readers, dict(zip(readers, sizes, strict=True)))


def time_reads(
    formats: Sequence[Formats], patch: tuple[int, int, int], reads: int, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each read of random patches of random cases."""
    generator = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in formats[0].readers}
    for turn in range(rounds + 1):
        chosen = [formats[generator.integers(len(formats))] for _ in range(reads)]
        crops = [crop(generator, one.shape, patch) for one in chosen]
        for name, spent in times.items():
            count = SLOW_READS if name == "nii.gz" else reads
            for one, slices in zip(chosen[:count], crops, strict=False):
                began = time.perf_counter()
                one.readers[name](slices)
                took = 1e3 * (time.perf_counter() - began)
                if turn:  # the first round warms up
                    spent.append(took)
    return times


def crop(
    generator: np.random.Generator, shape: Sequence[int], patch: tuple[int, int, int]
) -> Slices:
    """A random patch, cut where the case is smaller."""
    first = [
        int(generator.integers(0, max(1, length - size + 1)))
        for length, size in zip(shape, patch, strict=True)
    ]
    z, y, x = (
        slice(start, min(start + size, length))
        for start, size, length in zip(first, patch, shape, strict=True)
    )
    return z, y, x


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median and greatest."""
    return float(np.min(values)), float(np.median(values)), float(np.max(values))


if __name__ == "__main__":
    main()
