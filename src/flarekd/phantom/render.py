"""From layers to voxels: partial volume, texture, the scanner's noise, padding, label maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from flarekd.labels import TUMOR
from flarekd.phantom.grid import Float, Grid, enlarge, slices_between, smooth_noise
from flarekd.phantom.scene import Layer, Scene

SLAB = 8 * 256 * 256
"""Points at which tissues are mixed together: few enough to stay in the processor's cache."""

NOISE_SLICES = 24
AIR_HU = -1000
HU_RANGE = (-1024, 3071)


@dataclass(frozen=True)
class Rendering:
    """A rendered case; all arrays are ``(z, y, x)`` of one shape.

    Attributes:
        image: int16, Hounsfield units in -1024..3071.
        labels: uint8, complete truth, ids 0..14.
        organs: uint8, ids 0..13: the truth as if no tumour had been drawn.
    """

    image: NDArray[np.int16]
    labels: NDArray[np.uint8]
    organs: NDArray[np.uint8]


@dataclass(frozen=True)
class _Slab:
    """Some slices of the scan, and between which planes of the field grid each lies."""

    lower: NDArray[np.intp]
    weight: Float
    exact: bool

    def planes(self, field: Float, first: int) -> tuple[slice, Float]:
        """This slab's slices that a field beginning at plane `first` reaches, and it there."""
        lower = self.lower - first
        if self.exact:
            at = lower + (self.weight > 0.5)
            rows = np.flatnonzero((at >= 0) & (at < len(field)))
        else:
            at = lower
            rows = np.flatnonzero((at >= 0) & (at + 1 < len(field)))
        if not len(rows):
            return slice(0, 0), field[:0]
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        if self.exact:
            return span, field[at[rows[0]] : at[rows[-1]] + 1]
        near = field[at[span]]
        return span, near + self.weight[span, None, None] * (field[at[span] + 1] - near)


def render(scene: Scene, scan: Grid) -> Rendering:
    """Render a scene on the scanner's grid.

    Tissues are mixed at half the resolution of a fine scan (every field point becomes 2 × 2 there,
    then 4 × 4 pixels): the blur this leaves is about that of a soft reconstruction kernel. Labels
    are drawn at full resolution.

    Args:
        scene: What to render.
        scan: The scanner's grid, of which ``scene.space.grid`` is the field grid.
    """
    factor = scene.plan.factor
    half = 2 if factor > 1 else 1
    fields = scene.space.grid
    random = scene.plan.random(50)
    fine = gaussian_filter(random.standard_normal(fields.shape, dtype=np.float32), 0.6)
    fine *= np.float32(1 / fine.std())
    coarse = smooth_noise(random, fields.shape, fields.spacing, 17.0)
    noise = _Noise(scene, scan, random)
    image = np.empty(scan.shape, dtype=np.int16)
    labels = np.zeros(scan.shape, dtype=np.uint8)
    organs = np.zeros(scan.shape, dtype=np.uint8)
    lower, weight = slices_between(fields, scan)
    slices = max(SLAB // (half**2 * fields.shape[1] * fields.shape[2]), 1)
    for start in range(0, scan.shape[0], slices):
        part = slice(start, min(start + slices, scan.shape[0]))
        slab = _Slab(lower[part], weight[part], exact=factor == 1)
        textures = [enlarge(slab.planes(texture, 0)[1], half) for texture in (fine, coarse)]
        hu = np.full(textures[0].shape, AIR_HU, dtype=np.float32)
        for layer in scene.layers:
            span, depth = slab.planes(layer.depth, layer.box[0].start)
            if not len(depth):
                continue
            mixed = [enlarge(depth, half)]
            if layer.pattern is not None:
                mixed.append(enlarge(slab.planes(layer.pattern, layer.box[0].start)[1], half))
            _mix(hu, layer, (span, mixed), (textures[0], textures[1]), half)
            if layer.label is not None:
                _draw(labels[part], organs[part], layer, (span, enlarge(depth, factor)), factor)
        image[part] = noise.scan(enlarge(hu, factor // half), start)
    return Rendering(image, labels, organs)


def _window(layer: Layer, span: slice, factor: int) -> tuple[slice, slice, slice]:
    _, rows, columns = layer.box
    return (
        span,
        slice(rows.start * factor, rows.stop * factor),
        slice(columns.start * factor, columns.stop * factor),
    )


def _mix(
    hu: Float,
    layer: Layer,
    place: tuple[slice, list[Float]],
    textures: tuple[Float, Float],
    factor: int,
) -> None:
    span, (depth, *patterns) = place
    window = _window(layer, span, factor)
    share = np.float32(0.5) - depth
    np.clip(share, 0, 1, out=share)
    value = textures[0][window] * np.float32(layer.fine)
    value += textures[1][window] * np.float32(layer.coarse)
    value += np.float32(layer.hu)
    for pattern in patterns:
        value += pattern
    under = hu[window]
    value -= under
    value *= share
    under += value


def _draw(
    labels: NDArray[np.uint8],
    organs: NDArray[np.uint8],
    layer: Layer,
    place: tuple[slice, Float],
    factor: int,
) -> None:
    span, depth = place
    window = _window(layer, span, factor)
    inside = depth < 0
    assert layer.label is not None
    labels[window][inside] = layer.label
    if layer.label != TUMOR:
        organs[window][inside] = layer.label


class _Noise:
    """The scanner: noise as a kernel leaves it, most in the middle; padding; whole HU.

    One block of noise is made and laid over the scan, shifted anew every `NOISE_SLICES` slices.
    """

    def __init__(self, scene: Scene, scan: Grid, random: np.random.Generator) -> None:
        full = scene.plan.factor > 1
        depth = min(NOISE_SLICES, scan.shape[0])
        block = random.standard_normal((depth, *scan.shape[1:]), dtype=np.float32)
        sigma = (0.4, 0.85, 0.85) if full else (0.25, 0.45, 0.45)
        block = gaussian_filter(block, sigma, mode="wrap", truncate=3)
        # a reconstruction filter passes little of the lowest frequencies
        low = gaussian_filter(block, (0, 3.0, 3.0), mode="wrap", truncate=2)
        block -= np.float32(0.6) * low
        self._block = block * np.float32(1 / block.std())
        self._shifts = random.integers(0, scan.shape[1:], (scan.shape[0] // depth + 1, 2))
        y, x = (scan.axis(axis) for axis in (1, 2))
        middle = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / 130.0**2)
        self._amount = np.float32(scene.plan.noise_hu) * (
            np.float32(0.6) + np.float32(0.45) * middle
        )
        centred = [axis - axis.mean() for axis in (y, x)]
        radius = 0.5 * len(x) * scan.spacing[2] * 1.01
        self._outside = (
            centred[0][:, None] ** 2 + centred[1][None] ** 2 > radius**2
        ) & scene.plan.circle
        self._range = HU_RANGE

    def scan(self, hu: Float, start: int) -> NDArray[np.int16]:
        """Noisy, clipped, padded int16 slices; `start` is the first one's index in the scan."""
        for row in range(len(hu)):
            tile, at = divmod(start + row, len(self._block))
            shift = self._shifts[tile]
            noise = np.roll(self._block[at], (int(shift[0]), int(shift[1])), axis=(0, 1))
            noise *= self._amount
            hu[row] += noise
        np.rint(hu, out=hu)
        np.clip(hu, *self._range, out=hu)
        hu[:, self._outside] = self._range[0]
        return hu.astype(np.int16)
