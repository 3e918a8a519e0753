"""What a training store will cost in disk and time, told from headers before it is begun."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flarekd.errors import FlarekdError, counted
from flarekd.imaging.files import read_geometry
from flarekd.imaging.resampling import target_shape
from flarekd.imaging.volume import Shape, Triple

MOST_HEADERS = 50
"""Headers looked at: for thousands of cases a sample says enough."""

STORED_BYTES = 1.1
READ_S, STORED_S = 30e-9, 65e-9
"""A voxel of the store on disk, and seconds of one process for a voxel read and one stored.

Measured (docs/benchmarks/training.md); the first finished cases correct the time.
"""


@dataclass(frozen=True)
class Forecast:
    """Of the cases still to be made.

    Attributes:
        cases: How many.
        stored_bytes: Of their files.
        seconds: Of one process.
    """

    cases: int
    stored_bytes: float
    seconds: float

    def describe(self, free_bytes: float, jobs: int) -> str:
        """One line for a person.

        >>> Forecast(232, 1.2e9, 360).describe(80e9, 2)
        'training store: 232 cases, about 1.2 GB of 80 GB free, about 3 min with 2 processes'
        """
        jobs = max(1, min(jobs, self.cases))
        took = f"about {duration(self.seconds / jobs)} with {jobs} process{'es' * (jobs > 1)}"
        disk = f"about {size(self.stored_bytes)} of {size(free_bytes)} free"
        return f"training store: {counted(self.cases, 'case')}, {disk}, {took}"


def forecast(images: Sequence[Path], spacing_zyx: Triple) -> Forecast:
    """Look ahead by the headers of at most ``MOST_HEADERS`` scans, evenly spread.

    Args:
        images: Scans that are going to be stored.
        spacing_zyx: Of the store, mm; 0 keeps a scan's own.

    Returns:
        The forecast; a header that cannot be read counts for nothing, its case will say why.
    """
    step = max(1, math.ceil(len(images) / MOST_HEADERS))
    stored, seconds, known = 0.0, 0.0, 0
    for image in images[::step]:
        try:
            geometry = read_geometry(image)
        except (FlarekdError, OSError, ValueError):
            continue
        _, shape = stored_grid(geometry.shape_zyx, geometry.spacing_zyx, spacing_zyx)
        voxels = math.prod(shape)
        known += 1
        stored += STORED_BYTES * voxels
        seconds += READ_S * math.prod(geometry.shape_zyx) + STORED_S * voxels
    share = len(images) / known if known else 0.0
    return Forecast(len(images), stored * share, seconds * share)


def stored_grid(shape: Shape, own_zyx: Triple, wanted_zyx: Triple) -> tuple[Triple, Shape]:
    """Spacing and shape that a scan is stored with; a wanted spacing of 0 keeps the scan's own."""
    z, y, x = (wanted or own for wanted, own in zip(wanted_zyx, own_zyx, strict=True))
    return (z, y, x), target_shape(shape, own_zyx, (z, y, x))


def size(count: float) -> str:
    """Bytes in words: ``1.2 GB``, decimal as disks are sold.

    >>> [size(n) for n in (0, 123_400, 9.96e6, 1.24e9, 80e9)]
    ['0.0 MB', '0.1 MB', '10 MB', '1.2 GB', '80 GB']
    """
    number, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{number:.0f} {unit}" if number >= 9.95 else f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> [duration(s) for s in (0.2, 40, 100, 5000, 20_000)]
    ['1 s', '40 s', '2 min', '83 min', '5.6 h']
    """
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
