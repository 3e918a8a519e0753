"""Augmentation as the paper's code executes it (method.md §5), drawn and applied apart.

``sample`` draws the parameters of one patch, ``apply`` is a pure function of images, labels and
parameters; every transform can so be replayed and tested without randomness. It runs where the
images lie, and random fields are drawn on the CPU: a GPU gives the values the CPU gives, to float
precision. All spatial transforms act in the slice plane, the same for every slice of a 3D patch,
and are one resampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flarekd.protocol import Augmentation, Range
from flarekd.training import transforms
from flarekd.training.linear import wide_gaussian
from flarekd.training.warp import warp

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
        tissue: Standard deviation of what is added to the intensity of each class, and seed.
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
    tissue: tuple[float, int] | None = None

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
    drawn = Draw(
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
    # last, so that runs from before there was such a thing draw what they drew
    tissue = (between(on.tissue_sd), seed())
    return replace(drawn, tissue=tissue) if happens(on.tissue) else drawn


def apply(
    images: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[Tensor],
    draws: Sequence[Draw],
    patch: Zyx,
) -> tuple[Tensor, Tensor]:
    """Turn oversized regions into training patches, in the order of method.md §5.

    Classes are shifted in intensity before that where a draw says so, which the paper does not do.

    Args:
        images: n of float32 (z, y, x), normalised, each at least as large as `patch`: a tensor
            (n, z, y, x), or tensors of various shapes.
        labels: n of uint8 (z, y, x), each of its image's shape.
        draws: n, what to do with each.
        patch: Shape of a result.

    Returns:
        The patches, float32 (n, z, y, x), and their labels, uint8; new arrays on the images'
        device.
    """
    device = images[0].device
    results = torch.empty((len(draws), *patch), device=device)
    moved = torch.empty((len(draws), *patch), dtype=torch.uint8, device=device)
    for index, (image, ids, draw) in enumerate(zip(images, labels, draws, strict=True)):
        results[index], moved[index] = spatial(image, ids, draw, patch)

    def each(name: str, transform: Callable[[Tensor, Any], object], *, vector: bool = True) -> None:
        _transform(results, [getattr(draw, name) for draw in draws], transform, vector=vector)

    for image, ids, draw in zip(results, moved, draws, strict=True):
        if draw.tissue is not None:
            transforms.shift_tissue(image, ids, *draw.tissue)
    each("noise", transforms.add_noise, vector=False)
    each("blur", transforms.blur, vector=False)
    each("brightness", Tensor.mul_)
    each("contrast", transforms.scale_contrast)
    each("low_resolution", transforms.lower_resolution, vector=False)
    each("gamma_inverted", partial(transforms.bend_gamma, inverted=True))
    each("gamma", transforms.bend_gamma)
    return results, moved


def _transform(
    images: Tensor,
    parameters: Sequence[Any],
    transform: Callable[[Tensor, Any], object],
    *,
    vector: bool,
) -> None:
    """Let a transform act in place on the samples whose parameter is not None."""
    chosen = [index for index, value in enumerate(parameters) if value is not None]
    if not chosen:
        return
    values: Any = [parameters[index] for index in chosen]
    if vector:
        values = torch.tensor(values, device=images.device).view(-1, 1, 1, 1)
    if chosen[-1] - chosen[0] + 1 == len(chosen):  # neighbours: nothing need be copied
        transform(images[chosen[0] : chosen[-1] + 1], values)
    else:
        part = images[chosen]
        transform(part, values)
        images[chosen] = part


def spatial(image: Tensor, labels: Tensor, draw: Draw, patch: Zyx) -> tuple[Tensor, Tensor]:
    """Elastic deformation, rotation and scaling in one resampling; without them the central crop.

    Image by cubic interpolation with 0 outside, labels linearly per class at a threshold of one
    half.

    Args:
        image: float32 (z, y, x), at least as large as `patch`.
        labels: uint8 (z, y, x).
        draw: What to do.
        patch: Shape of the result.

    Returns:
        float32 and uint8 of shape `patch`, maybe views of the arguments.
    """
    z, y, x = ((outer - inner) // 2 for outer, inner in zip(image.shape, patch, strict=True))
    image, labels = image[z : z + patch[0]], labels[z : z + patch[0]]
    if not draw.is_spatial:
        crop = (slice(None), slice(y, y + patch[1]), slice(x, x + patch[2]))
        return image[crop], labels[crop]
    rows, columns = places(draw, patch[1:], image.device)
    height, width = image.shape[1:]
    return warp(image, labels, rows + (height - 1) / 2, columns + (width - 1) / 2)


def places(draw: Draw, target: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each target pixel looks in the source: row and column from its centre, pixels."""
    angle = math.radians(draw.rotation)
    cosine, sine = math.cos(angle) * draw.scale, math.sin(angle) * draw.scale
    rows, columns = (
        torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2 for size in target
    )
    y = (rows * cosine)[:, None] - columns * sine
    x = (rows * sine)[:, None] + columns * cosine
    if draw.elastic is not None:
        alpha, sigma, seed = draw.elastic
        down, right = elastic_field(target, sigma, seed, device)
        y.add_(down, alpha=alpha * cosine)
        x.add_(right, alpha=alpha * cosine)
        if sine:
            y.sub_(right, alpha=alpha * sine)
            x.add_(down, alpha=alpha * sine)
    return y, x


def elastic_field(target: tuple[int, int], sigma: float, seed: int, device: torch.device) -> Tensor:
    """Gaussian-smoothed U(−1, 1), float32 (2, y, x), the same on every device."""
    field = uniform((2, *target), seed).to(device)
    (down, up), (left, right) = (wide_gaussian(length, sigma, device) for length in target)
    return right.along(up.along(left.along(down.along(field, 1), 2), 1), 2)


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    """White noise of U(−1, 1) in 256 steps, float32 on the CPU: eight numbers from each one drawn.

    Smoothed over hundreds of pixels as it is going to be, the steps leave no trace.
    """
    count = math.prod(shape)
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))
    return words.view(torch.int8)[:count].view(shape).float().add_(0.5).div_(128)
