"""From files to a training store: read, check, resample, compress, once."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekd.errors import InputError, reason
from flarekd.imaging import checks, store
from flarekd.imaging.files import read_labels, read_volume
from flarekd.imaging.findings import admitted
from flarekd.imaging.resampling import resample, resample_labels
from flarekd.labels import IGNORE, TUMOR
from flarekd.ledger import stamp
from flarekd.leftovers import sweep
from flarekd.parallel import map_cases
from flarekd.training.forecast import duration, forecast, size, stored_grid

Advance = Callable[[int, int, str], None]
Say = Callable[[str], None]

MEASURED_CASES = 8
"""After so many the time that is left is told again, from what these took."""


@dataclass(frozen=True)
class Source:
    """One training case: its scan, its labels and where it goes.

    Attributes:
        case: Its id.
        image: The scan.
        labels: Its label map.
        annotated: Organs that the labels vouch for, where organs alone are learned of labels that
            are not complete: all else becomes background, and tumours `IGNORE`, since they lie in
            an organ or in none and nobody has said in which. None where labels are complete.
    """

    case: str
    image: Path
    labels: Path
    annotated: frozenset[int] | None = None


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
    key: str


def prepare(
    sources: Sequence[Source],
    folder: Path,
    grid: Grid,
    jobs: int,
    advance: Advance,
    *,
    say: Say = lambda _: None,
) -> tuple[list[store.StoredCase], dict[str, str]]:
    """Make the store, or what is missing or out of date of it.

    Args:
        sources: Training cases.
        folder: Of the store.
        grid: What to store.
        jobs: Processes.
        advance: Told (done, total, note).
        say: Told what making it will cost.

    Returns:
        The stored cases in the order of `sources`, and what failed: case → reason.

    Raises:
        InputError: If the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)  # a case may have gigabytes
    todo, failed = _find_missing(sources, folder, grid, jobs, advance)
    done = len(sources) - len(todo)
    advance(done, len(sources), "")
    if todo:
        _announce(todo, jobs, folder, say)
    began, first = time.monotonic(), done
    for outcome in map_cases(_prepare_one, todo, jobs):
        done += 1
        if outcome.error is not None:
            failed[outcome.item.source.case] = outcome.error
        for note in outcome.result or ():
            say(f"note: {note}")
        advance(done, len(sources), outcome.item.source.case)
        if done - first == MEASURED_CASES and len(todo) > 2 * MEASURED_CASES:
            left_s = (time.monotonic() - began) / MEASURED_CASES * (len(sources) - done)
            say(f"training store: about {duration(left_s)} left, going by the first cases")
    cases = [
        store.open_case(folder / f"{source.case}.b2nd")
        for source in sources
        if source.case not in failed
    ]
    return cases, failed


def _find_missing(
    sources: Sequence[Source], folder: Path, grid: Grid, jobs: int, advance: Advance
) -> tuple[list[_Job], dict[str, str]]:
    """What has to be made, and which sources are not there, with the reason."""

    def check(source: Source) -> _Job | OSError | None:
        try:
            key = _key(source, grid)
        except OSError as error:
            return error
        path = folder / f"{source.case}{store.SUFFIX}"
        return None if store.is_current(path, key) else _Job(source, grid, path, key)

    todo, failed, current = [], {}, 0
    # threads: hashing releases the interpreter lock, and there may be gigabytes to hash
    with ThreadPoolExecutor(jobs) as pool:
        for source, job in zip(sources, pool.map(check, sources), strict=True):
            if isinstance(job, OSError):
                failed[source.case] = reason(job)
            elif job is not None:
                todo.append(job)
            else:
                current += 1
                advance(current, len(sources), source.case)
    return todo, failed


def _announce(todo: Sequence[_Job], jobs: int, folder: Path, say: Say) -> None:
    """Say what the store will cost; refuse what the disk has no room for."""
    cost = forecast([job.source.image for job in todo], todo[0].grid.spacing)
    replaced = sum(job.path.stat().st_size for job in todo if job.path.exists())
    free = shutil.disk_usage(folder).free + replaced
    say(cost.describe(free, jobs))
    if cost.stored_bytes > free:
        raise InputError(
            f"the training store needs about {size(cost.stored_bytes)}, {str(folder)!r} has "
            f"{size(free)} free",
            "make room, or put the run folder on a larger disk",
        )


def store_hash(cases: Sequence[store.StoredCase]) -> str:
    """SHA-256 over the names and contents of the cases."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda one: one.case):
        digest.update(f"{case.case} {case.sha256}\n".encode())
    return digest.hexdigest()


def _key(source: Source, grid: Grid) -> str:
    parts: list[Any] = [source.image, source.labels, grid.spacing, grid.chunk, grid.tumor_only]
    if source.annotated is not None:
        parts.append(sorted(source.annotated))
    return stamp(*parts)


def _prepare_one(job: _Job) -> list[str]:
    """Store a case (in a worker); what a person should know of its files."""
    volume, labels = read_volume(job.source.image), read_labels(job.source.labels)
    known = np.where(labels.array == IGNORE, np.uint8(0), labels.array)
    drawn = [*checks.of_pair(volume.geometry, labels.geometry), *checks.of_labels(known)]
    notes = [
        f"{job.source.image}: {note}" for note in (*volume.notes, *checks.of_scan(volume.array))
    ]
    notes += [
        f"{job.source.labels}: {note}"
        for note in (*labels.notes, *admitted(job.source.labels, drawn))
    ]
    ids = labels.array
    if job.grid.tumor_only:
        ids = np.where(ids == IGNORE, ids, ids == TUMOR).astype(np.uint8)
    if job.source.annotated is not None:
        ids = _vouched(ids, job.source.annotated)
    own = volume.geometry
    spacing, shape = stored_grid(own.shape_zyx, own.spacing_zyx, job.grid.spacing)
    hu = np.rint(resample(volume.array, shape)).clip(-32768, 32767).astype(np.int16)
    store.write_case(
        job.path,
        hu,
        resample_labels(ids, shape),
        spacing_zyx=spacing,
        chunk_zyx=job.grid.chunk,
        key=job.key,
        lesion_class=1 if job.grid.tumor_only else TUMOR,
        own=own,
    )
    return notes


def _vouched(ids: NDArray[np.uint8], annotated: Collection[int]) -> NDArray[np.uint8]:
    """Labels of the organs that a person vouches for alone; see `Source`."""
    kept = np.zeros(256, np.uint8)
    kept[list(annotated)] = list(annotated)
    kept[[TUMOR, IGNORE]] = IGNORE
    return kept[ids]
