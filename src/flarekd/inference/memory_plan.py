"""How much memory segmenting will take, told beforehand from the scans' headers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from flarekd.imaging.volume import Shape

VOXEL_READ = 6
"""Bytes a native voxel while a scan of int16 is read: as stored and turned, and packed as .mha and
.nrrd may be; or as int16 and float32, where DICOM is found to hold more than int16 does. Of wider
numbers it is what is stored, twice."""
VOXEL_HELD, VOXEL_HELD_WIDE = 2, 4
"""int16, or float32 of what was stored in more than two bytes."""
VOXEL_FOUND, VOXEL_WRITTEN = 1, 2
"""Bytes a native voxel of labels: as found; and turned back for the file, and packed."""
GRID_INPUT = 4
ALLOWANCE = 64 << 20
"""For what has no formula: buffers, and what the allocator keeps."""


@dataclass(frozen=True)
class Need:
    """Bytes that one case takes beside what the process holds anyway.

    Attributes:
        reading: Until it is at the network's spacing.
        waiting: From then on, while another case is segmented.
        network: While it is segmented.
        writing: While its labels are written.
    """

    reading: int
    waiting: int
    network: int
    writing: int


def need(
    native: Shape,
    grid: Shape,
    channels: int,
    planes: int,
    *,
    keeps_scan: bool,
    stored: int = 2,
    labelling: int = 0,
    beside: int = 0,
) -> Need:
    """What a case takes.

    Args:
        native: Its shape.
        grid: Its shape at the network's spacing, at least the patch.
        channels: Outputs of the network; their sums and one weight are held at every grid voxel of
            some planes.
        planes: How many of the grid's planes are held at once.
        keeps_scan: Whether the scan is needed again beside its labels.
        stored: Bytes a voxel in its file.
        labelling: Bytes that making labels of some planes takes beside them.
        beside: Bytes that are taken by what is written beside the labels, after these.
    """
    voxels, cells = prod(native), prod(grid)
    held = (VOXEL_HELD if stored <= VOXEL_HELD else VOXEL_HELD_WIDE) * voxels if keeps_scan else 0
    sums = (channels + 1) * 4 * (cells // grid[0]) * planes
    waiting = held + GRID_INPUT * cells  # and until the labels are written
    return Need(
        reading=max(VOXEL_READ, 2 * stored) * voxels + GRID_INPUT * cells,
        waiting=waiting,
        network=waiting + sums + labelling + VOXEL_FOUND * voxels,
        writing=waiting + VOXEL_FOUND * voxels + max(VOXEL_WRITTEN * voxels, beside),
    )


def alone(case: Need) -> int:
    """Bytes at the peak where one case is finished before the next is begun."""
    return max(case.reading, case.network, case.writing)


def overlapped(cases: Sequence[Need]) -> int:
    """Bytes at the peak where the next case is read and the last written meanwhile."""
    if len(cases) == 1:
        return alone(cases[0])
    reading = max(max(case.reading, case.waiting) for case in cases)
    return reading + max(c.network for c in cases) + max(c.writing for c in cases)
