"""What both networks are made of: the convolution block of nnU-Net and He initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

LEAKY_SLOPE = 0.01

EPS = 1e-5


class _Conv3d(nn.Conv3d):
    """A convolution whose gradients are right in bf16 on the CPU too.

    oneDNN's bf16 gradient of the weights of a 3×3×3 kernel is made of memory nobody wrote where the
    image is 2 thick (torch 2.13, AVX512-BF16: 28 of 28 such shapes, none of 224 others).
    """

    def forward(self, image: Tensor) -> Tensor:
        """From (n, in, z, y, x) to (n, out, z, y, x)."""
        if image.device.type == "cpu" and image.shape[2] == 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(image.float())
        return super().forward(image)


_CONV: dict[int, Any] = {2: nn.Conv2d, 3: _Conv3d}


class _NormAct(torch.autograd.Function):
    """Instance norm and leaky ReLU that keep nothing but their result for the way back.

    Apart they keep the norm's input too, which makes half of all activations a network holds while
    it trains. It need not be known: from y = leaky(γ·h + β) follows h = (leaky⁻¹(y) - β) / γ, and
    the norm's gradient is a function of h and the standard deviation. The work is done by batch
    norm's kernels, as in torch's own instance norm; on the way back they are told β for a mean and
    1/γ for an inverse deviation, by which they find h.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """From (n, c, ...) to the same shape; `weight` γ and `bias` β are (c,)."""
        result = torch.empty_like(image, memory_format=_format(image))
        parts, places = _samples(image), _samples(result)
        scale, shift = (part.repeat(image.shape[0] // len(parts)) for part in (weight, bias))
        inverse_sds = []
        for part, place in zip(parts, places, strict=True):
            mean, inverse_sd = torch.empty_like(scale), torch.empty_like(scale)
            torch.native_batch_norm(
                part, scale, shift, None, None, True, 0.0, EPS, out=(place, mean, inverse_sd)
            )
            inverse_sds.append(inverse_sd)
        functional.leaky_relu_(result, LEAKY_SLOPE)
        ctx.save_for_backward(result, scale, shift, *inverse_sds)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of image, weight and bias."""
        result, scale, shift, *inverse_sds = ctx.saved_tensors
        backward = torch.ops.aten.leaky_relu_backward
        gradient = backward(gradients[0], result, LEAKY_SLOPE, True)
        gradient = gradient.contiguous(memory_format=_format(result))
        normed = functional.leaky_relu(result, 1 / LEAKY_SLOPE)
        found = [
            torch.ops.aten.native_batch_norm_backward(
                part,
                of_part,
                scale * scale * inverse_sd,  # times 1/γ this is the slope γ/σ
                None,
                None,
                shift,
                1 / scale,
                True,
                EPS,
                [True, True, True],
            )
            for part, of_part, inverse_sd in zip(
                _samples(gradient), _samples(normed), inverse_sds, strict=True
            )
        ]
        by_image, by_scale, by_shift = map(_joined, zip(*found, strict=True))
        shape = result.shape
        by_weight, by_bias = (part.view(shape[:2]).sum(0) for part in (by_scale, by_shift))
        return by_image.view(shape), by_weight, by_bias


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _format(image: Tensor) -> torch.memory_format:
    """Whether the channels of (n, c, ...) lie last in memory; plain where both may be said."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(image.ndim)
    if last is None or image.is_contiguous() or not image.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


def _samples(image: Tensor) -> list[Tensor]:
    """Views (1, c, ...) of an image, in each of which batch norm norms as instance norm would.

    One with all samples' channels, or where channels lie last in memory one a sample.
    """
    if _format(image) is torch.contiguous_format:
        return [image.reshape(1, -1, *image.shape[2:])]
    return list(torch.split(image, 1))


class NormAct(nn.Module):
    """Instance norm (affine, eps 1e-5) → leaky ReLU 0.01.

    On the CPU, in float32, it trains with half the memory of the two apart; results are the same
    bit for bit, gradients up to rounding.

    Args:
        channels: Of the input (n, channels, ...).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, image: Tensor) -> Tensor:
        """Float (n, channels, ...) of the same shape."""
        if torch.is_grad_enabled() and self._is_invertible(image):
            result: Tensor = _NormAct.apply(image, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch's own gap
            return result
        normed = functional.instance_norm(image, weight=self.weight, bias=self.bias, eps=EPS)
        return functional.leaky_relu_(normed, LEAKY_SLOPE)

    def _is_invertible(self, image: Tensor) -> bool:
        """Whether the way back loses no more than rounding: not in half, nor with γ far below β."""
        if image.device.type != "cpu" or image.dtype != torch.float32:
            return False
        return bool((self.bias.abs() < 100 * self.weight.abs()).all())


def conv_block(
    in_channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Sequential:
    """Convolution (bias) → instance norm (affine, eps 1e-5) → leaky ReLU 0.01 (method.md §3.1, §4).

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel: Odd kernel size per axis, slowest axis first; two axes make a 2D block, three a 3D
            one.
        stride: Stride per axis.

    Returns:
        A module from (n, in, ...) to (n, out, ...), each axis divided by its stride.
    """
    dims = len(kernel)
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(
        _CONV[dims](in_channels, out_channels, tuple(kernel), tuple(stride), padding),
        NormAct(out_channels),
    )


def conv_stage(
    in_channels: int,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    convs: int = 2,
) -> nn.Sequential:
    """`convs` convolution blocks of one kernel; the first one strides."""
    ones = (1,) * len(kernel)
    return nn.Sequential(
        conv_block(in_channels, out_channels, kernel, stride),
        *(conv_block(out_channels, out_channels, kernel, ones) for _ in range(convs - 1)),
    )


class Unfilled(TorchFunctionMode):
    """While it is active no weight is drawn at random: those of a file come in their place.

    On the meta device that spares seconds: drawing there imports a computer algebra system.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, but for the two that draw."""
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def he_init(module: nn.Module) -> None:
    """He-normal weights for leaky ReLU 0.01 and zero biases, everywhere (Table 4).

    For ``Module.apply``.
    """
    layers = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    if isinstance(module, layers):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stage_sizes(encoder: nn.ModuleList, window: Sequence[int]) -> list[tuple[int, int]]:
    """Channels and voxels of what each stage of an encoder makes of a window, full size first."""
    voxels, sizes = math.prod(window), []
    for stage in encoder:
        first: Any = stage[0][0]  # type: ignore[index]  # a stage is made by `conv_stage`
        voxels //= math.prod(first.stride)
        sizes.append((first.out_channels, voxels))
    return sizes


def heads_out(heads: nn.ModuleList, features: list[Tensor], training: bool) -> list[Tensor]:
    """Logits of every level while training, of the full resolution alone otherwise.

    Args:
        heads: One 1×1 convolution a level, full resolution first.
        features: Decoder features in the same order.
        training: Whether deep supervision needs the coarse levels too.
    """
    wanted = len(features) if training else 1
    return [head(feature) for head, feature in zip(heads[:wanted], features, strict=False)]
