"""What both networks are made of: the convolution block of nnU-Net and He initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

LEAKY_SLOPE = 0.01

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


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
        _NORM[dims](out_channels, eps=1e-5, affine=True),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
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


def he_init(module: nn.Module) -> None:
    """He-normal weights for leaky ReLU 0.01 and zero biases, everywhere (Table 4).

    For ``Module.apply``.
    """
    layers = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
    if isinstance(module, layers):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def heads_out(heads: nn.ModuleList, features: list[Tensor], training: bool) -> list[Tensor]:
    """Logits of every level while training, of the full resolution alone otherwise.

    Args:
        heads: One 1×1 convolution a level, full resolution first.
        features: Decoder features in the same order.
        training: Whether deep supervision needs the coarse levels too.
    """
    wanted = len(features) if training else 1
    return [head(feature) for head, feature in zip(heads[:wanted], features, strict=False)]
