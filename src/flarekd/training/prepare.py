"""From files to a training store: read, check, resample, compress, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flarekd.errors import InputError
from flarekd.imaging import store
from flarekd.imaging.files import read_labels, read_volume
from flarekd.imaging.intensity import (
    FLARE22_STATISTICS,
    IntensityStatistics,
    foreground_sample,
    statistics,
)
from flarekd.imaging.resampling import resample, resample_labels, target_shape
from flarekd.labels import TUMOR
from flarekd.ledger import stamp
from flarekd.parallel import map_cases

FEWEST_SAMPLES = 1000
"""Fewer foreground voxels than this say nothing about intensities.

FLARE22's published statistics stand in.
"""


@dataclass(frozen=True)
class Source:
    """One training case: its scan, its labels and where it goes."""

    case: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Grid:
    """What the store holds.

    Attributes:
        spacing: Millimetres (z, y, x); 0 keeps the case's own.
        chunk: Voxels (z, y, x) of a chunk, about the patch.
        tumor_only: Whether tumour becomes 1 and all else background (§2.1, the teacher's task).
    """

    spacing: tuple[float, float, float]
    chunk: tuple[int, int, int]
    tumor_only: bool


@dataclass(frozen=True)
class _Job:
    source: Source
    grid: Grid
    path: Path


def prepare(
    sources: Sequence[Source],
    folder: Path,
    grid: Grid,
    jobs: int,
    advance: Callable[[int, int, str], None],
) -> tuple[list[store.StoredCase], dict[str, str]]:
    """Make the store, or what is missing or out of date of it.

    Args:
        sources: Training cases.
        folder: Of the store.
        grid: What to store.
        jobs: Processes.
        advance: Told (done, total, note).

    Returns:
        The stored cases in the order of `sources`, and what failed: case → reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, failed = 0, {}
    todo = []
    for source in sources:
        path = folder / f"{source.case}.b2nd"
        try:
            current = store.is_current(path, _key(source, grid))
        except OSError as error:
            failed[source.case] = str(error)
            continue
        if current:
            done += 1
        else:
            todo.append(_Job(source, grid, path))
    advance(done, len(sources), "")
    for outcome in map_cases(_prepare_one, todo, jobs):
        done += 1
        if outcome.error is not None:
            failed[outcome.item.source.case] = outcome.error
        advance(done, len(sources), outcome.item.source.case)
    cases = [
        store.open_case(folder / f"{source.case}.b2nd")
        for source in sources
        if source.case not in failed
    ]
    return cases, failed


def intensity_statistics(
    cases: Sequence[store.StoredCase], window: tuple[float, float] | None = None
) -> IntensityStatistics:
    """Clip limits, mean and standard deviation of the store's foreground (method.md §2).

    Args:
        cases: Of the store.
        window: HU to clip to instead of percentiles; mean and deviation are then of what is left.
    """
    samples = []
    for case in cases:
        z, y, x = case.shape_zyx
        samples.append(foreground_sample(*case.read((slice(0, z), slice(0, y), slice(0, x)))))
    if sum(sample.size for sample in samples) < FEWEST_SAMPLES:
        return FLARE22_STATISTICS
    if window is None:
        return statistics(samples)
    clipped = np.clip(np.concatenate(samples), *window)
    return IntensityStatistics(*window, float(clipped.mean()), float(clipped.std()))


def store_hash(cases: Sequence[store.StoredCase]) -> str:
    """SHA-256 over the names and contents of the cases."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda one: one.case):
        digest.update(f"{case.case} {case.sha256}\n".encode())
    return digest.hexdigest()


def _key(source: Source, grid: Grid) -> str:
    return stamp(source.image, source.labels, grid.spacing, grid.chunk, grid.tumor_only)


def _prepare_one(job: _Job) -> None:
    key = _key(job.source, job.grid)
    volume, labels = read_volume(job.source.image), read_labels(job.source.labels)
    mismatch = volume.geometry.mismatch(labels.geometry)
    if mismatch:
        raise InputError(
            f"label and image do not match: {job.source.labels.name}: {mismatch}",
            "re-export the label, or drop the case from cohort.csv",
        )
    ids = labels.array
    if job.grid.tumor_only:
        ids = (ids == TUMOR).astype(np.uint8)
    own = volume.geometry.spacing_zyx
    z, y, x = (wanted or have for wanted, have in zip(job.grid.spacing, own, strict=True))
    shape = target_shape(volume.geometry.shape_zyx, own, (z, y, x))
    hu = np.rint(resample(volume.array, shape)).clip(-32768, 32767).astype(np.int16)
    store.write_case(
        job.path,
        hu,
        resample_labels(ids, shape),
        spacing_zyx=(z, y, x),
        chunk_zyx=job.grid.chunk,
        key=key,
    )
