"""The teacher: a 2D U-Net with a dual-attention decoder (Fig. 2; the inventory of method.md §3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from flarekd.layers import conv_stage, he_init, heads_out, stage_sizes
from flarekd.teacher.attention import ChannelAttention, DualGate, LiteralChannelAttention, NonLocal

Attention = Literal["published", "equations", "none"]
GATED_LEVELS = 3
"""Levels above the non-local one whose skips are gated: 4, 3 and 2 of the published network."""


class PlainLevel(nn.Module):
    """A decoder level of nnU-Net: upsample, concatenate [up, skip], two convolution blocks."""

    def __init__(self, below: int, here: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, here, 2, 2, bias=bias)
        self.block = conv_stage(2 * here, here, (3, 3), (1, 1))

    def forward(self, feature: Tensor, skip: Tensor) -> Tensor:
        """From `feature` (n, below, y, x) and `skip` (n, here, 2y, 2x) to (n, here, 2y, 2x)."""
        result: Tensor = self.block(torch.cat((self.up(feature), skip), dim=1))
        return result


class AttentionLevel(nn.Module):
    """A decoder level with channel attention and, by its kind, spatial attention on the skip.

    Args:
        below: Channels of the level below.
        here: Channels of this level.
        kind: ``nonlocal`` (self-attention over the concatenation, and dropout), ``gated`` or
            ``open``.
        literal: Build the blocks as Eq. 1 and 2 print them.
    """

    def __init__(
        self, below: int, here: int, kind: Literal["nonlocal", "gated", "open"], literal: bool
    ) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(below, here, 2, 2)
        self.gate = DualGate(here, below, literal) if kind == "gated" else None
        block = LiteralChannelAttention if literal else ChannelAttention
        self.nonlocal_ = NonLocal(2 * here) if kind == "nonlocal" else None
        self.block = block(2 * here, here)
        # a module of its own: the published code builds it in forward, where it also acts at
        # inference
        self.dropout = nn.Dropout2d(0.5) if kind == "nonlocal" else nn.Identity()

    def forward(self, feature: Tensor, skip: Tensor) -> Tensor:
        """From `feature` (n, below, y, x) and `skip` (n, here, 2y, 2x) to (n, here, 2y, 2x)."""
        if self.gate is not None:
            skip = self.gate(skip, feature)
        both = torch.cat((skip, self.up(feature)), dim=1)
        if self.nonlocal_ is not None:
            both = self.nonlocal_(both)
        result: Tensor = self.dropout(self.block(both))
        return result


class TeacherUNet(nn.Module):
    """The attention U-Net that labels tumours.

    With the published channels it has 62,935,174 + 1,920·classes parameters: 62,963,974 with 15
    outputs (the paper's 62.96M), 62,939,014 as the binary tumour teacher. Without attention it is
    the plain 2D nnU-Net of Table 7: 41,262,432 with 2 outputs.

    Args:
        classes: Outputs, background included.
        channels: Features of each stage, full resolution first; each step between stages halves
            both axes.
        attention: ``published`` (the code's blocks), ``equations`` (Eq. 1 and 2 literally) or
            ``none``.
        bias: Whether plain levels' transposed convolutions and the heads have one (nnU-Net v2).
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int] = (32, 64, 128, 256, 480, 480, 480, 480),
        attention: Attention = "published",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.divisor = 2 ** (len(channels) - 1)
        encoder = [conv_stage(1, channels[0], (3, 3), (1, 1))]
        for before, after in zip(channels, channels[1:], strict=False):
            encoder.append(conv_stage(before, after, (3, 3), (2, 2)))
        self.encoder = nn.ModuleList(encoder)
        deepest = len(channels) - 2
        self.decoder = nn.ModuleList(
            _level(deepest - level, channels[level + 1], channels[level], attention, bias)
            for level in range(deepest + 1)
        )
        self.heads = nn.ModuleList(nn.Conv2d(here, classes, 1, bias=bias) for here in channels[:-1])
        self.apply(he_init)
        for module in self.modules():
            if isinstance(module, NonLocal):
                module.start_as_identity()

    def most_numbers(self, window: Sequence[int]) -> int:
        """Numbers of the largest tensor that a window (y, x) becomes on the way."""
        sizes = stage_sizes(self.encoder, window)
        most = max(2 * channels * pixels for channels, pixels in sizes)
        for level, (_, pixels) in zip(self.decoder, sizes, strict=False):
            if getattr(level, "nonlocal_", None) is not None:
                most = max(most, pixels * pixels // 4)  # each pixel against all, pooled by 2
        return most

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Logits of normalised slices.

        Args:
            image: float (n, 1, y, x), both axes divisible by ``divisor``.

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
            feature = self.decoder[level](feature, skips[level])
            features.insert(0, feature)
        logits = heads_out(self.heads, features, self.training)
        return logits if self.training else logits[0]


def _level(height: int, below: int, here: int, attention: Attention, bias: bool) -> nn.Module:
    """The decoder level `height` steps above the deepest one (method.md §3.2.

    Plain, non-local, three gated, open).
    """
    if height == 0 or attention == "none":
        return PlainLevel(below, here, bias)
    literal = attention == "equations"
    if height == 1 and not literal:
        return AttentionLevel(below, here, "nonlocal", literal)
    if height <= 1 + GATED_LEVELS:
        return AttentionLevel(below, here, "gated", literal)
    return AttentionLevel(below, here, "open", literal)
