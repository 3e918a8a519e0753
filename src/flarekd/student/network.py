"""The student: a plain, small 3D U-Net (the "Small nnU-Net" of Table 2; method.md §4)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flarekd.layers import conv_stage, he_init, heads_out, stage_sizes


class StudentUNet(nn.Module):
    """A 3D U-Net with instance norm, strided downsampling and deep supervision.

    The published one has 5,640,656 + 240·classes parameters: 5,644,256 with 15 outputs. Its first
    encoder stage has (1, 3, 3) kernels where it does not downsample z, every other stage (3, 3, 3),
    as nnU-Net v1 builds it. The arguments after `strides` are for the plain U-Nets of others, whose
    weights ``flarekd import-nnunet`` reads.

    Args:
        classes: Outputs, background included.
        channels: Features of each stage, full resolution first.
        strides: One (z, y, x) stride for each step between stages.
        kernels: Odd (z, y, x) kernel of each encoder stage; None for the published ones.
        decoder_kernels: Of each decoder level, full resolution first; None for (3, 3, 3).
        convs: Convolutions of each encoder stage; None for two.
        decoder_convs: Of each decoder level; None for two.
        bias: Whether transposed convolutions and heads have one (nnU-Net v2).
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        strides: Sequence[Sequence[int]] = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        *,
        kernels: Sequence[Sequence[int]] | None = None,
        decoder_kernels: Sequence[Sequence[int]] | None = None,
        convs: Sequence[int] | None = None,
        decoder_convs: Sequence[int] | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__()
        levels = len(channels) - 1
        if len(strides) != levels:
            message = f"{len(channels)} stages need {levels} strides, got {len(strides)}"
            raise ValueError(message)
        self.divisor = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        first_kernel = (1 if strides[0][0] == 1 else 3, 3, 3)
        kernels = kernels or (first_kernel, *((3, 3, 3),) * levels)
        decoder_kernels = decoder_kernels or ((3, 3, 3),) * levels
        steps = zip(
            (1, *channels[:-1]),
            channels,
            kernels,
            ((1, 1, 1), *strides),
            convs or (2,) * (levels + 1),
            strict=True,
        )
        self.encoder = nn.ModuleList(conv_stage(*step) for step in steps)
        up, decoder = [], []
        for below, here, stride in zip(channels[1:], channels, strides, strict=False):
            size = (stride[0], stride[1], stride[2])
            up.append(nn.ConvTranspose3d(below, here, size, size, bias=bias))
        for here, kernel, count in zip(
            channels[:-1], decoder_kernels, decoder_convs or (2,) * levels, strict=True
        ):
            decoder.append(conv_stage(2 * here, here, kernel, (1, 1, 1), count))
        self.up, self.decoder = nn.ModuleList(up), nn.ModuleList(decoder)
        self.heads = nn.ModuleList(nn.Conv3d(here, classes, 1, bias=bias) for here in channels[:-1])
        self.apply(he_init)

    def most_numbers(self, window: Sequence[int]) -> int:
        """Numbers of the largest tensor that a window (z, y, x) becomes on the way."""
        # up and skip side by side
        return max(2 * channels * voxels for channels, voxels in stage_sizes(self.encoder, window))

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Logits of a normalised patch.

        Args:
            image: float (n, 1, z, y, x), each axis divisible by ``divisor``.

        Returns:
            While training the logits (n, classes, ...) of every level, full resolution first;
            otherwise those of the full resolution alone.
        """
        skips = []
        feature = image
        for stage in self.encoder:
            feature = stage(feature)
            skips.append(feature)
        features: list[Tensor] = []
        for level in reversed(range(len(self.decoder))):
            # unnamed, so that nothing outlives its use: these are the largest tensors of all
            feature = self.decoder[level](torch.cat((self.up[level](feature), skips[level]), dim=1))
            features.insert(0, feature)
        logits = heads_out(self.heads, features, self.training)
        return logits if self.training else logits[0]
