"""Two grids a scan: the scanner's voxels, and coarser points where shapes are worked out.

Shapes are smooth, so their distance fields are evaluated on a *field grid* (every `factor`-th
pixel, 3 mm apart along z where the scan is fine) and interpolated to voxels. Everything is float32
and ``(z, y, x)``; millimetres lie in the patient's frame: x to the left, y to the back, z upward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]

FIELD_STEP_Z_MM = 3.0

BLOCK = 1 << 15
"""Points worked on at once."""

NOISE_GAIN = (315 / 151) ** 1.5
"""How much quieter B-splines leave white noise: their mean square is 151/315 an axis."""


@dataclass(frozen=True)
class Grid:
    """A regular grid.

    Attributes:
        shape: Points along z, y, x.
        spacing: Millimetres along z, y, x.
        start: Position of the first point, z, y, x, mm in the patient's frame.
    """

    shape: Shape
    spacing: Triple
    start: Triple

    def axis(self, axis: int) -> Float:
        """Positions along one axis, mm, float32."""
        steps = np.arange(self.shape[axis], dtype=np.float32)
        return np.asarray(self.start[axis] + steps * self.spacing[axis], dtype=np.float32)

    def coarse(self, factor: int) -> Grid:
        """The field grid of this scan: `factor` pixels a point in-plane, 3 mm along z.

        Raises:
            ValueError: If the in-plane shape cannot be divided by `factor`.
        """
        if factor == 1:
            return self
        depth, height, width = self.shape
        if height % factor or width % factor:
            message = f"{height}×{width} pixels cannot be divided by {factor}"
            raise ValueError(message)
        dz, dy, dx = self.spacing
        z, y, x = self.start
        planes = int(np.ceil((depth - 1) * dz / FIELD_STEP_Z_MM)) + 3
        half = (factor - 1) / 2
        return Grid(
            (planes, height // factor, width // factor),
            (FIELD_STEP_Z_MM, dy * factor, dx * factor),
            (z - FIELD_STEP_Z_MM, y + half * dy, x + half * dx),
        )


def spline_taps(positions: NDArray[np.floating]) -> tuple[NDArray[np.intp], Float]:
    """Cubic B-splines on a lattice at 0, 1, …: smooth, not interpolating.

    Args:
        positions: Where to blend, 1 or more.

    Returns:
        The first of four lattice points for each position, and their weights (4, positions).
    """
    first = np.floor(positions).astype(np.intp) - 1
    distance = np.abs(np.asarray(positions)[None] - (first + np.arange(4)[:, None]))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return first, np.asarray(np.where(distance < 1, near, far), dtype=np.float32)


def smooth_noise(
    random: np.random.Generator, shape: Shape, spacing: Triple, correlation_mm: float
) -> Float:
    """A smooth random field of unit variance: a coarse random lattice blended by B-splines.

    Args:
        random: Where the lattice comes from.
        shape: Points of the result, z, y, x.
        spacing: Millimetres between them.
        correlation_mm: Distance between lattice points.
    """
    ends = [(n - 1) * step / correlation_mm for n, step in zip(shape, spacing, strict=True)]
    counts = [int(np.floor(end + 1e-6)) + 5 for end in ends]
    field = random.standard_normal(counts, dtype=np.float32) * np.float32(NOISE_GAIN)
    offsets = 1 + random.random(3)
    for axis in (2, 1, 0):
        positions = np.arange(shape[axis]) * (spacing[axis] / correlation_mm) + offsets[axis]
        field = _blended(field, axis, *spline_taps(positions))
    return field


def blocks(shape: Sequence[int]) -> Iterator[slice]:
    """Parts of a ``(z, y, x)`` array along z that stay in the processor's cache."""
    depth, height, width = shape
    step = max(BLOCK // max(height * width, 1), 1)
    for start in range(0, depth, step):
        yield slice(start, min(start + step, depth))


def _blended(field: Float, axis: int, first: NDArray[np.intp], weights: Float) -> Float:
    """B-splines along one axis, as `spline_taps` gives them."""
    if axis == 0:
        return _blended_planes(field, first, weights)
    # gathers instead of a matrix product, whose threads cost more than they give
    along = (-1,) if axis == 2 else (-1, 1)
    blended: Float = np.take(field, first, axis=axis) * weights[0].reshape(along)
    for tap in (1, 2, 3):
        term = np.take(field, first + tap, axis=axis)
        term *= weights[tap].reshape(along)
        blended += term
    return blended


def _blended_planes(field: Float, first: NDArray[np.intp], weights: Float) -> Float:
    """The same along z, plane by plane: nothing is gathered, and planes stay in the cache."""
    result = np.empty((len(first), *field.shape[1:]), dtype=np.float32)
    for index, (start, taps) in enumerate(zip(first.tolist(), weights.T, strict=True)):
        terms = field[start : start + 4] * taps[:, None, None]
        plane = np.add(terms[0], terms[1], out=result[index])
        plane += terms[2]
        plane += terms[3]
    return result


@lru_cache(maxsize=16)
def _phase_taps(factor: int) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """For each sub-pixel: the first of four neighbours (relative) and Catmull-Rom weights."""
    taps = []
    for phase in range(factor):
        at = (phase + 0.5) / factor - 0.5
        base = int(np.floor(at))
        t = at - base
        weights = (
            (-(t**3) + 2 * t**2 - t) / 2,
            (3 * t**3 - 5 * t**2 + 2) / 2,
            (-3 * t**3 + 4 * t**2 + t) / 2,
            (t**3 - t**2) / 2,
        )
        taps.append((base - 1, weights))
    return tuple(taps)


def enlarge(field: Float, factor: int) -> Float:
    """Interpolate ``(z, y, x)`` in-plane to `factor` times the pixels: cubic (Catmull-Rom).

    Pixel centres are half-pixel ones; slices stay as they are. Only whole rows are multiplied and
    added, so it is quick and gives the same bits whatever the number of threads.
    """
    if factor == 1:
        return field
    for axis in (1, 2):
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[axis] = (2, 2)
        padded = np.pad(field, padding, mode="edge")
        count = field.shape[axis]
        shape = list(field.shape)
        shape[axis] *= factor
        result = np.empty(shape, dtype=np.float32)
        for phase, (first, weights) in enumerate(_phase_taps(factor)):
            target = (slice(None),) * axis + (slice(phase, None, factor),)
            total: Float | None = None
            for tap, weight in enumerate(weights):
                start = 2 + first + tap
                part = padded[(slice(None),) * axis + (slice(start, start + count),)]
                term = part * np.float32(weight)
                total = term if total is None else np.add(total, term, out=total)
            result[target] = total
        field = result
    return field


def slices_between(grid: Grid, fine: Grid) -> tuple[NDArray[np.intp], Float]:
    """Where each slice of `fine` lies in `grid`: the plane below it, and the next one's weight."""
    at = (fine.axis(0).astype(np.float64) - grid.start[0]) / grid.spacing[0]
    lower = np.clip(np.floor(at + 1e-6).astype(np.intp), 0, max(grid.shape[0] - 2, 0))
    return lower, np.asarray(np.clip(at - lower, 0, 1), dtype=np.float32)
