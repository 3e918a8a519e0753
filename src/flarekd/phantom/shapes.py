"""Implicit shapes in millimetres: a field is negative inside, near the surface a distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from flarekd.phantom.grid import Box, Float, Grid, Triple, smooth_noise

FAR_MM = 60.0
"""Value of a field where no shape is near; only its sign matters there."""

PAD_MM = 18.0
"""How far posture and deformation can move a shape out of its nominal box."""

NEAR_MM = 7.0
"""How far around a ball its field is worked out."""

MARGIN_MM = 4.0
"""How far the nominal box of a sweep reaches beyond its balls."""

Points = Sequence[tuple[float, float, float]]
Windows = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class Space:
    """Anatomical coordinates of every point of the field grid: where in the *nominal* body it lies.

    Posture, size and deformation of a patient are in these coordinates, so shapes are written
    for one nominal adult and come out individual.

    Attributes:
        grid: The field grid.
        nominal: Nominal x, y and z (3, z, y, x), float32 mm.
        axes: Nominal coordinates along z, y, x with no rotation nor deformation, for finding boxes.
    """

    grid: Grid
    nominal: Float
    axes: tuple[Float, Float, Float]

    @property
    def x(self) -> Float:
        """Nominal x (z, y, x), mm."""
        return np.asarray(self.nominal[0])

    @property
    def y(self) -> Float:
        """Nominal y (z, y, x), mm."""
        return np.asarray(self.nominal[1])

    @property
    def z(self) -> Float:
        """Nominal z (z, y, x), mm."""
        return np.asarray(self.nominal[2])

    @cached_property
    def whole(self) -> Box:
        """The box of all points."""
        depth, height, width = self.grid.shape
        return slice(0, depth), slice(0, height), slice(0, width)

    def box(self, low: Triple, high: Triple) -> Box:
        """Indices (z, y, x) that hold all between two nominal corners (x, y, z), mm."""
        ranges = []
        for axis, (lo, hi) in zip(self.axes, zip(low[::-1], high[::-1], strict=True), strict=True):
            first, last = np.searchsorted(axis, [lo - PAD_MM, hi + PAD_MM])
            ranges.append(slice(int(first), int(last)))
        z, y, x = ranges
        return z, y, x

    def places(self, nominal: Float) -> Float:
        """Where nominal points (n, 3), x, y, z, lie along `axes`: deformation undone."""
        found = nominal
        for _ in range(2):
            index = [
                np.minimum(np.searchsorted(axis, found[:, 2 - k]), len(axis) - 1)
                for k, axis in enumerate(self.axes)
            ]
            z, y, x = (axis[at] for axis, at in zip(self.axes, index, strict=True))
            offset = self.nominal[:, index[0], index[1], index[2]] - np.stack((x, y, z))
            found = nominal - offset.T
        return found

    def noise(self, random: np.random.Generator, box: Box, correlation_mm: float) -> Float:
        """Smooth noise of unit variance over a box."""
        z, y, x = (max(part.stop - part.start, 0) for part in box)
        return smooth_noise(random, (z, y, x), self.grid.spacing, correlation_mm)


def is_empty(box: Box) -> bool:
    """Whether a box is too thin to hold a surface (fewer than two points along an axis)."""
    return any(part.stop - part.start < 2 for part in box)


def ellipsoid(
    space: Space, box: Box, center: Triple, semi: Triple, angles_deg: Triple = (0, 0, 0)
) -> Float:
    """An ellipsoid at `center` (x, y, z) with semi-axes `semi`, turned about x, y and z.

    First-order distance k (k - 1) / |grad k|, which is exact on the surface.
    """
    turn = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix().T.astype(np.float32)
    px, py, pz = (space.x[box] - center[0], space.y[box] - center[1], space.z[box] - center[2])
    total = np.zeros(px.shape, dtype=np.float32)
    slope = np.zeros(px.shape, dtype=np.float32)
    for row, half in zip(turn, semi, strict=True):
        terms = [cos * p for cos, p in zip(row, (px, py, pz), strict=True) if cos]
        part = sum(terms[1:], start=terms[0])
        part *= np.float32(1 / half)
        part *= part
        total += part
        slope += part * np.float32(1 / half**2)
    k = np.sqrt(total)
    return np.asarray(k * (k - 1) / (np.sqrt(slope) + np.float32(1e-6)), dtype=np.float32)


def plane(space: Space, box: Box, through: Triple, normal: Triple) -> Float:
    """The half-space behind a plane; `normal` (x, y, z) points out of it."""
    nx, ny, nz = np.asarray(normal, dtype=np.float32) / np.float32(np.linalg.norm(normal))
    return np.asarray(
        nx * (space.x[box] - through[0])
        + ny * (space.y[box] - through[1])
        + nz * (space.z[box] - through[2]),
        dtype=np.float32,
    )


def curve(points: Points, values: Sequence[float], step_mm: float) -> tuple[Float, Float]:
    """A smooth curve through control points with a value (a radius) along it.

    Returns:
        Positions (n, 3) as x, y, z, and the n values, float32, about `step_mm` apart.
    """
    knots = np.asarray(points, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    at = np.concatenate([[0.0], np.cumsum(np.maximum(lengths, 1e-3))])
    count = max(int(np.ceil(at[-1] / step_mm)) + 1, 2)
    places = np.linspace(0, at[-1], count)
    path = CubicSpline(at, knots)(places) if len(knots) > 2 else _straight(at, knots, places)
    return path.astype(np.float32), np.interp(places, at, values).astype(np.float32)


def _straight(at: np.ndarray, knots: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(places, at, knots[:, axis]) for axis in range(3)], axis=1)


def spheres(space: Space, box: Box, centers: Float, radii: Float) -> Float:
    """The union of many balls, each worked out only near itself; far away the field is `FAR_MM`."""
    return _union(space, box, (centers, radii), _windows(space, box, centers, radii))


def _windows(space: Space, box: Box, centers: Float, radii: Float) -> Windows:
    """First indices and ends (n, 3), z, y, x, of where in a box each ball is near."""
    places = space.places(centers)
    reach = radii + NEAR_MM
    lows, highs = [], []
    for axis, part in enumerate(box):
        nominal, column = space.axes[axis], 2 - axis
        first = np.searchsorted(nominal, places[:, column] - reach)
        last = np.searchsorted(nominal, places[:, column] + reach)
        lows.append(np.clip(first, part.start, part.stop))
        highs.append(np.clip(last, part.start, part.stop))
    return np.stack(lows, axis=1), np.stack(highs, axis=1)


def _union(space: Space, box: Box, balls: tuple[Float, Float], windows: Windows) -> Float:
    centers, radii = balls
    lows, highs = windows
    field = np.full(tuple(part.stop - part.start for part in box), np.inf, dtype=np.float32)
    if is_empty(box):
        return np.minimum(field, FAR_MM)
    # balls of one size are united by their squares: one root for all
    same = bool((radii == radii[0]).all())
    z, y, x = (part.start for part in box)
    middles, seen = centers[:, :, None, None, None], (highs > lows).all(axis=1)
    for low, high, middle, radius in zip(
        lows[seen].tolist(), highs[seen].tolist(), middles[seen], radii[seen], strict=True
    ):
        (z0, y0, x0), (z1, y1, x1) = low, high
        offset = space.nominal[:, z0:z1, y0:y1, x0:x1].copy()
        offset -= middle
        offset *= offset
        distance = offset[0]
        distance += offset[1]
        distance += offset[2]
        if not same:
            np.sqrt(distance, out=distance)
            distance -= radius
        local = field[z0 - z : z1 - z, y0 - y : y1 - y, x0 - x : x1 - x]
        np.minimum(local, distance, out=local)
    if same:
        np.sqrt(field, out=field)
        field -= radii[0]
    return np.minimum(field, np.float32(FAR_MM), out=field)


def tube(
    space: Space, points: Points, radii: Sequence[float], margin_mm: float | None = None
) -> tuple[Box, Float]:
    """A tube of varying radius along a smooth curve, in its own box; see `sweep`."""
    path, thickness = curve(points, radii, max(0.45 * min(radii), 1.5))
    return sweep(space, path, thickness, margin_mm)


def sweep(
    space: Space, path: Float, radii: Float, margin_mm: float | None = None
) -> tuple[Box, Float]:
    """The union of balls along a path, in its own box.

    The box is no larger than the field is worked out; with a margin it is that much larger than
    the nominal balls, for what is going to grow beyond them.
    """
    rim = float(radii.max()) + (MARGIN_MM if margin_mm is None else margin_mm)
    low, high = path.min(axis=0) - rim, path.max(axis=0) + rim
    box = space.box(
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
    )
    windows = _windows(space, box, path, radii)
    if margin_mm is None:
        box = _around(box, windows)
    return box, _union(space, box, (path, radii), windows)


def _around(box: Box, windows: Windows) -> Box:
    """What of a box the windows reach, and a point more on each side: a slope needs one."""
    lows, highs = windows
    seen = (highs > lows).all(axis=1)
    if not seen.any():
        return (slice(0, 0),) * 3
    first, last = lows[seen].min(axis=0) - 1, highs[seen].max(axis=0) + 1
    z, y, x = (
        slice(max(int(low), part.start), min(int(high), part.stop))
        for part, low, high in zip(box, first, last, strict=True)
    )
    return z, y, x


def blend(first: Float, second: Float, width_mm: float) -> Float:
    """Smooth union of two fields: their minimum, rounded where they meet."""
    mix = second - first
    mix *= 0.5
    mix /= width_mm
    mix += 0.5
    np.clip(mix, 0, 1, out=mix)
    rounding = width_mm * mix
    rounding *= 1 - mix
    mix *= first - second
    mix += second
    mix -= rounding
    return mix


def carve(first: Float, second: Float, width_mm: float) -> Float:
    """`first` without `second`, the edge rounded."""
    return -blend(-first, second, width_mm)


def meet(first: Float, second: Float, width_mm: float) -> Float:
    """What lies in both, the edge rounded."""
    return -blend(-first, -second, width_mm)
