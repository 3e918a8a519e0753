"""Augmentation as the paper's code executes it (method.md §5), drawn and applied apart.

``sample`` draws the parameters of one patch, ``apply`` is a pure function of image, labels and
parameters; every transform can so be replayed and tested without randomness. All spatial transforms
act in the slice plane, the same for every slice of a 3D patch, and are one resampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flarekd.protocol import Augmentation, Range

Zyx = tuple[int, int, int]


@dataclass(frozen=True)
class Draw:
    """The parameters of one patch; None leaves a transform out.

    Attributes:
        elastic: Amplitude and smoothness, voxels, and the seed of its displacement field.
        rotation: Degrees in-plane, 0 for none.
        scale: Factor on the coordinates: above 1 shrinks what is seen.
        noise: Standard deviation and seed.
        blur: σ, voxels.
        brightness: Factor.
        contrast: Factor.
        low_resolution: Zoom of the grid it goes through.
        gamma_inverted: Exponent on the negated intensity.
        gamma: Exponent.
    """

    elastic: tuple[float, float, int] | None = None
    rotation: float = 0.0
    scale: float = 1.0
    noise: tuple[float, int] | None = None
    blur: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    low_resolution: float | None = None
    gamma_inverted: float | None = None
    gamma: float | None = None

    @property
    def is_spatial(self) -> bool:
        """Whether voxels move."""
        return self.elastic is not None or self.rotation != 0.0 or self.scale != 1.0


def sample(generator: np.random.Generator, settings: Augmentation) -> Draw:
    """Draw the parameters of one patch.

    Every number is drawn whether it is used or not, so a change of one probability leaves the
    others' draws alone.
    """

    def happens(probability: float) -> bool:
        return bool(generator.random() < probability)

    def between(limits: Range) -> float:
        return float(generator.uniform(*limits))

    def either(low: Range, high: Range) -> float:
        first, second, coin = between(low), between(high), generator.random() < 0.5
        return first if coin else second

    def seed() -> int:
        return int(generator.integers(2**31))

    on = settings
    elastic = (between(on.elastic_alpha), between(on.elastic_sigma), seed())
    rotation, scale = between(on.rotation_degrees), either(on.scaling_down, on.scaling_up)
    noise = (between(on.noise_sd), seed())
    blur, brightness = between(on.blur_sigma), between(on.brightness_factor)
    contrast, zoom = either(on.contrast_down, on.contrast_up), between(on.low_resolution_zoom)
    inverted, gamma = either(on.gamma_down, on.gamma_up), either(on.gamma_down, on.gamma_up)
    return Draw(
        elastic=elastic if happens(on.elastic) else None,
        rotation=rotation if happens(on.rotation) else 0.0,
        scale=scale if happens(on.scaling) else 1.0,
        noise=noise if happens(on.noise) else None,
        blur=blur if happens(on.blur * 0.5) else None,  # the coin per channel, and there is one
        brightness=brightness if happens(on.brightness) else None,
        contrast=contrast if happens(on.contrast) else None,
        low_resolution=zoom if happens(on.low_resolution * 0.5) else None,
        gamma_inverted=inverted if happens(on.gamma_inverted) else None,
        gamma=gamma if happens(on.gamma) else None,
    )


def apply(image: Tensor, labels: Tensor, draw: Draw, patch: Zyx) -> tuple[Tensor, Tensor]:
    """Turn an oversized region into a training patch, in the order of method.md §5.

    Args:
        image: float32 (z, y, x), normalised, at least as large as `patch`.
        labels: uint8 (z, y, x).
        draw: What to do.
        patch: Shape of the result.

    Returns:
        The patch, float32, and its labels, uint8.
    """
    image, labels = spatial(image, labels, draw, patch)
    if draw.noise is not None:
        image = noise(image, *draw.noise)
    if draw.blur is not None:
        image = blur(image, draw.blur)
    if draw.brightness is not None:
        image = image * draw.brightness
    if draw.contrast is not None:
        image = contrast(image, draw.contrast)
    if draw.low_resolution is not None:
        image = low_resolution(image, draw.low_resolution)
    if draw.gamma_inverted is not None:
        image = -gamma(-image, draw.gamma_inverted)
    if draw.gamma is not None:
        image = gamma(image, draw.gamma)
    return image, labels


def spatial(image: Tensor, labels: Tensor, draw: Draw, patch: Zyx) -> tuple[Tensor, Tensor]:
    """Elastic deformation, rotation and scaling in one resampling; without them the central crop.

    Image by cubic interpolation with 0 outside, labels linearly per class at a threshold of one
    half.
    """
    z, y, x = ((outer - inner) // 2 for outer, inner in zip(image.shape, patch, strict=True))
    image, labels = image[z : z + patch[0]], labels[z : z + patch[0]]
    if not draw.is_spatial:
        crop = (slice(None), slice(y, y + patch[1]), slice(x, x + patch[2]))
        return image[crop], labels[crop]
    grid = _grid(draw, image.shape[1:], patch[1:]).to(image.device)
    moved = _grid_sample(image, grid, "bicubic")
    moved_labels = torch.zeros(patch, dtype=torch.uint8, device=labels.device)
    for label in torch.unique(labels).tolist():
        if label:
            share = _grid_sample((labels == label).float(), grid, "bilinear")
            moved_labels[share >= 0.5] = int(label)
    return moved, moved_labels


def _grid(draw: Draw, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Where each target pixel (y, x) looks in the source, as (1, y, x, 2) of x, y in -1..1."""
    rows, columns = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in target)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    if draw.elastic is not None:
        alpha, sigma, seed = draw.elastic
        generator = torch.Generator().manual_seed(seed)
        offsets = torch.rand((2, *target), generator=generator) * 2 - 1
        offsets = gaussian_filter(offsets, sigma, axes=(1, 2), edge="zeros") * alpha
        y, x = y + offsets[0], x + offsets[1]
    angle = math.radians(draw.rotation)
    cosine, sine = math.cos(angle) * draw.scale, math.sin(angle) * draw.scale
    y, x = y * cosine - x * sine, y * sine + x * cosine
    height, width = source
    return torch.stack((x * 2 / max(width - 1, 1), y * 2 / max(height - 1, 1)), dim=-1)[None]


def _grid_sample(stack: Tensor, grid: Tensor, mode: str) -> Tensor:
    # slices ride along as channels, so one grid moves them all
    return functional.grid_sample(
        stack[None], grid, mode=mode, padding_mode="zeros", align_corners=True
    )[0]


def gaussian_filter(
    stack: Tensor, sigma: float, axes: tuple[int, ...], edge: str = "reflect"
) -> Tensor:
    """Gaussian smoothing along some axes, truncated at 4 σ as scipy does.

    Args:
        stack: float32, any number of axes.
        sigma: Voxels.
        axes: Which axes.
        edge: ``reflect`` (scipy's: the edge voxel is repeated) or ``zeros`` outside.
    """
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32, device=stack.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None]
    for axis in axes:
        length = stack.shape[axis]
        rows = stack.movedim(axis, -1)
        flat = rows.reshape(-1, 1, length)
        if edge == "zeros":
            smooth = functional.conv1d(flat, kernel, padding=radius)
        else:
            index = torch.arange(-radius, length + radius, device=stack.device) % (2 * length)
            index = torch.where(index < length, index, 2 * length - 1 - index)
            smooth = functional.conv1d(flat[..., index], kernel)
        stack = smooth.reshape(rows.shape).movedim(-1, axis)
    return stack


def noise(image: Tensor, sd: float, seed: int) -> Tensor:
    """Add white Gaussian noise."""
    generator = torch.Generator().manual_seed(seed)
    return image + torch.randn(image.shape, generator=generator).to(image.device) * sd


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur over all axes longer than one voxel."""
    axes = tuple(axis for axis in range(image.ndim) if image.shape[axis] > 1)
    return gaussian_filter(image, sigma, axes)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Stretch intensities about their mean, kept within the range they had."""
    mean = image.mean()
    return ((image - mean) * factor + mean).clamp(image.min(), image.max())


def low_resolution(image: Tensor, zoom: float) -> Tensor:
    """Simulate a coarse scan: nearest neighbour down and cubic up again, in the slice plane."""
    height, width = image.shape[1:]
    small = (max(1, round(height * zoom)), max(1, round(width * zoom)))
    coarse = functional.interpolate(image[None], size=small, mode="nearest-exact")
    return functional.interpolate(
        coarse, size=(height, width), mode="bicubic", align_corners=False
    )[0]


def gamma(image: Tensor, exponent: float) -> Tensor:
    """Raise the intensity, scaled to 0..1, to a power; mean and standard deviation are restored."""
    mean, sd = image.mean(), image.std()
    low, high = image.min(), image.max()
    span = (high - low).clamp_min(1e-7)
    bent = ((image - low) / span) ** exponent * span + low
    return (bent - bent.mean()) / bent.std().clamp_min(1e-8) * sd + mean
