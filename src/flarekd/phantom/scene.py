"""A scene: layers of tissue over each other, the last one on top, as a painter would lay them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flarekd.phantom.grid import Box, Float, Grid, smooth_noise
from flarekd.phantom.patient import CasePlan
from flarekd.phantom.shapes import FAR_MM, Space, is_empty

DEFORMATION_MM = 4.5
CUT_MM = 5.0


@dataclass(frozen=True)
class Layer:
    """One tissue.

    Attributes:
        box: Where it can be on the field grid.
        depth: Signed distance in *voxels across the surface*, negative inside: gives partial
            volume.
        hu: Mean Hounsfield units.
        fine: Amplitude of fine texture, HU; `coarse` likewise of slow variation.
        label: What it does to the label map: None nothing, 0 clears, 1..13 an organ, 14 a tumour.
        pattern: HU over `box` that come on top of the mean, as `flarekd.phantom.stroma` makes them.
    """

    box: Box
    depth: Float
    hu: float
    fine: float
    coarse: float
    label: int | None
    pattern: Float | None = None


@dataclass
class Scene:
    """What a case is rendered from.

    Attributes:
        plan: The case.
        space: Nominal coordinates of the field grid.
        hu: Mean HU of each tissue in this patient and phase.
        cavity: Field of the abdominal cavity over the whole grid, mm, set by the torso.
        marbling: HU by which fat darkens muscle, over the whole grid, set by the torso.
        organs: Fields of organs and obstacles by name, mm, for those that come later.
        layers: In the order of painting.
    """

    plan: CasePlan
    space: Space
    hu: dict[str, float]
    voxel: tuple[float, float, float]
    cavity: Float
    marbling: Float
    organs: dict[str, tuple[Box, Float]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def paint(
        self,
        box: Box,
        distance: Float,
        tissue: str | float,
        texture: tuple[float, float] = (4.0, 3.0),
        label: int | None = None,
        *,
        pattern: Float | None = None,
    ) -> None:
        """Lay a tissue over what is there.

        Args:
            box: Where `distance` lies on the field grid.
            distance: Field in about mm, negative inside.
            tissue: Name of the tissue, or its HU.
            texture: Amplitudes of fine and coarse texture, HU.
            label: See `Layer`.
            pattern: See `Layer`.
        """
        if is_empty(box):
            return
        box, cuts = _shrink(box, distance)
        if is_empty(box):
            return
        value = self.hu[tissue] if isinstance(tissue, str) else tissue
        depth = self._in_voxels(distance[cuts])
        own = None if pattern is None else pattern[cuts]
        self.layers.append(Layer(box, depth, float(value), *texture, label, own))

    def _in_voxels(self, distance: Float) -> Float:
        # far from a surface fields are cut off, and a jump there must not look like a surface
        distance = np.minimum(distance, np.float32(CUT_MM))
        slope = np.full(distance.shape, 0.02, dtype=np.float32)
        for axis, width in enumerate(self.voxel):
            part = np.empty_like(distance)
            rise, along = part.swapaxes(0, axis), distance.swapaxes(0, axis)
            np.subtract(along[2:], along[:-2], out=rise[1:-1])
            rise[1:-1] *= np.float32(0.5)
            np.subtract(along[1], along[0], out=rise[0])
            np.subtract(along[-1], along[-2], out=rise[-1])
            part *= np.float32(width)
            part *= part
            slope += part
        np.sqrt(slope, out=slope)
        np.divide(distance, slope, out=slope)
        return np.clip(slope, -6, 6, out=slope)

    def remember(self, name: str, box: Box, distance: Float) -> None:
        """Keep an organ's field, for what grows in it or must not run into it."""
        if not is_empty(box):
            self.organs[name] = (box, distance)

    def within(self, box: Box, margin_mm: float) -> Float:
        """The abdominal cavity over a box, narrowed by a margin, mm."""
        return self.cavity[box] + np.float32(margin_mm)

    def over(self, box: Box, name: str) -> Float:
        """A remembered field over another box; far outside where it was not worked out."""
        result = np.full(tuple(part.stop - part.start for part in box), FAR_MM, dtype=np.float32)
        if name in self.organs:
            own, distance = self.organs[name]
            here, there = _overlap(box, own)
            result[here] = distance[there]
        return result


def _overlap(box: Box, own: Box) -> tuple[Box, Box]:
    here, there = [], []
    for part, other in zip(box, own, strict=True):
        first, last = max(part.start, other.start), min(part.stop, other.stop)
        last = max(first, last)
        here.append(slice(first - part.start, last - part.start))
        there.append(slice(first - other.start, last - other.start))
    return (here[0], here[1], here[2]), (there[0], there[1], there[2])


def _shrink(box: Box, distance: Float) -> tuple[Box, Box]:
    """A box without the margins where nothing is near (rendering costs by it), and where in it."""
    near = distance < 6
    flat = np.asarray(near.any(axis=0))
    result, cuts = [], []
    for part, seen in zip(
        box, (near.any(axis=(1, 2)), flat.any(axis=1), flat.any(axis=0)), strict=True
    ):
        hits = np.flatnonzero(seen)
        if not len(hits):
            return (slice(0, 0),) * 3, (slice(0, 0),) * 3
        first, last = max(int(hits[0]) - 1, 0), min(int(hits[-1]) + 2, part.stop - part.start)
        result.append(slice(part.start + first, part.start + last))
        cuts.append(slice(first, last))
    return (result[0], result[1], result[2]), (cuts[0], cuts[1], cuts[2])


def make_space(plan: CasePlan, grid: Grid) -> Space:
    """Nominal coordinates of a field grid: this patient's posture, size and deformation undone."""
    random = plan.random(1)
    build = plan.habitus
    z, y, x = grid.axis(0), grid.axis(1), grid.axis(2)
    angle = np.deg2rad(build.roll_deg)
    cos, sin = np.float32(np.cos(angle) / build.girth), np.float32(np.sin(angle) / build.girth)
    shifts = [
        DEFORMATION_MM * np.clip(smooth_noise(random, grid.shape, grid.spacing, 95.0), -2.2, 2.2)
        for _ in range(3)
    ]
    nominal = np.empty((3, *grid.shape), dtype=np.float32)
    nominal[0] = shifts[0] + (cos * x[None, None, :] + sin * y[None, :, None])
    nominal[1] = shifts[1] + (cos * y[None, :, None] - sin * x[None, None, :])
    nominal[2] = shifts[2] + (z / np.float32(build.height))[:, None, None]
    axes = (z / build.height, y / build.girth, x / build.girth)
    return Space(
        grid,
        nominal,
        (axes[0].astype(np.float32), axes[1].astype(np.float32), axes[2].astype(np.float32)),
    )
