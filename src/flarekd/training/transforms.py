"""Augmentation of intensities, in place, each sample with parameters of its own.

Images are float32 (n, z, y, x); parameters that are tensors are (n, 1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flarekd.training.linear import Banded, coarse, gaussian

_WHOLE = (1, 2, 3)
"""The axes of one sample."""


def add_noise(images: Tensor, noise: Sequence[tuple[float, int]]) -> None:
    """Add white Gaussian noise of a standard deviation, drawn on the CPU from a seed."""
    for image, (sd, seed) in zip(images, noise, strict=True):
        generator = torch.Generator().manual_seed(seed)
        image.add_(torch.randn(image.shape, generator=generator).to(image.device), alpha=sd)


def shift_tissue(image: Tensor, labels: Tensor, sd: float, seed: int) -> None:
    """Add to every class an intensity of its own, drawn on the CPU from N(0, sd²) by a seed.

    A network that has seen organs in any contrast looks for their shapes and places: how SynthSeg
    (Billot et al. 2023) learns from synthetic images alone. What has no label keeps its intensity.

    Args:
        image: float32 (z, y, x), changed in place.
        labels: uint8 (z, y, x).
        sd: Of the normalised intensity.
        seed: Of the draw.
    """
    shifts = torch.randn(256, generator=torch.Generator().manual_seed(seed)).mul_(sd)
    shifts[0] = 0
    image.add_(shifts.to(image.device)[labels.int()])


def blur(images: Tensor, sigmas: Sequence[float]) -> None:
    """Gaussian blur by σ voxels over all axes longer than one voxel."""
    for image, sigma in zip(images, sigmas, strict=True):
        lengths = {axis: length for axis, length in enumerate(image.shape) if length > 1}
        _in_turn(image, {a: gaussian(n, sigma, image.device) for a, n in lengths.items()})


def _in_turn(image: Tensor, operators: dict[int, Banded]) -> None:
    """Apply each axis' operator, in place."""
    source, target = image, torch.empty_like(image)
    for axis, operator in operators.items():
        operator.along(source, axis, out=target)
        source, target = target, source
    if source is not image:
        image.copy_(source)


def scale_contrast(images: Tensor, factors: Tensor) -> None:
    """Stretch intensities about their mean, kept within the range they had."""
    low, high = images.amin(_WHOLE, keepdim=True), images.amax(_WHOLE, keepdim=True)
    mean = images.mean(_WHOLE, keepdim=True)
    images.mul_(factors).add_(mean * (1 - factors))
    torch.minimum(torch.maximum(images, low, out=images), high, out=images)


def lower_resolution(images: Tensor, zooms: Sequence[float]) -> None:
    """Simulate a coarse scan: nearest neighbour down and cubic up again, in the slice plane."""
    for image, zoom in zip(images, zooms, strict=True):
        _in_turn(image, {axis: coarse(image.shape[axis], zoom, image.device) for axis in (1, 2)})


def bend_gamma(images: Tensor, exponents: Tensor, *, inverted: bool = False) -> None:
    """Raise the intensity, scaled to 0..1, to a power; mean and standard deviation are restored.

    Args:
        images: See the module.
        exponents: Of the power.
        inverted: Whether the negated image is what it acts on.
    """
    low, high = images.amin(_WHOLE, keepdim=True), images.amax(_WHOLE, keepdim=True)
    span = (high - low).clamp_min_(1e-7)
    start, sign = (high, -1.0) if inverted else (low, 1.0)
    mean = images.mean(_WHOLE, keepdim=True)
    images.sub_(mean)
    deviation = torch.linalg.vector_norm(images, dim=_WHOLE, keepdim=True)
    images.sub_(start - mean).mul_(sign / span)
    # half the time of a power; the logarithm of 0 itself takes five times as long as any other
    images.clamp_min_(1e-30).log2_().mul_(exponents).exp2_()
    images.sub_(images.mean(_WHOLE, keepdim=True))
    bent = torch.linalg.vector_norm(images, dim=_WHOLE, keepdim=True)
    images.mul_(sign * deviation / bent.clamp_min_(1e-8)).add_(mean)
