"""Spatial and channel attention: as the published weights have them, and as Eq. 1 and 2 print them.

The public code and the paper differ (method.md §3.3, §3.4). The code's blocks are the ones with
62.96M parameters and the default; the literal ones are the variant ``equations``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttentionGate(nn.Module):
    """One additive attention path of Fig. 3a: α·skip with α ∈ [0, 1] per pixel.

    Args:
        skip_channels: C, channels of the encoder feature z^l; also the inner width.
        gate_channels: Channels of the decoder feature z^h of the level below, before upsampling.
        project: Whether a 1×1 convolution and batch norm follow (the published code; Eq. 1 has
            none).
    """

    def __init__(self, skip_channels: int, gate_channels: int, project: bool) -> None:
        super().__init__()
        self.theta = nn.Conv2d(skip_channels, skip_channels, 1)
        self.phi = nn.Conv2d(gate_channels, skip_channels, 1)
        self.psi = nn.Conv2d(skip_channels, 1, 1)
        self.project: nn.Module = nn.Identity()
        if project:
            self.project = nn.Sequential(
                nn.Conv2d(skip_channels, skip_channels, 1), nn.BatchNorm2d(skip_channels)
            )

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Weigh `skip` (n, C, y, x) by what `gate` (n, Cg, y', x') looks for."""
        low = functional.interpolate(
            self.phi(gate), size=skip.shape[2:], mode="bilinear", align_corners=False
        )
        alpha = torch.sigmoid(self.psi(functional.relu(self.theta(skip) + low)))
        projected: Tensor = self.project(alpha * skip)
        return projected


class DualGate(nn.Module):
    """Two independent gates on the same inputs, concatenated and mixed to C channels (Eq. 1)."""

    def __init__(self, skip_channels: int, gate_channels: int, literal: bool = False) -> None:
        super().__init__()
        self.first = AttentionGate(skip_channels, gate_channels, project=not literal)
        self.second = AttentionGate(skip_channels, gate_channels, project=not literal)
        norm = nn.Identity() if literal else nn.BatchNorm2d(skip_channels)
        self.mix = nn.Sequential(nn.Conv2d(2 * skip_channels, skip_channels, 1), norm, nn.ReLU())

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Gate `skip` (n, C, y, x) by `gate` (n, Cg, y', x'); same shape as `skip`."""
        both = torch.cat((self.first(skip, gate), self.second(skip, gate)), dim=1)
        mixed: Tensor = self.mix(both)
        return mixed


class NonLocal(nn.Module):
    """Embedded-Gaussian self-attention over pixels, keys and values pooled by 2 (method.md §3.3).

    The paper never mentions it; its 925,200 parameters are in the published count. The last norm
    starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, inner, 1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def start_as_identity(self) -> None:
        """Zero the last norm's weight; called after the initialisation of the whole network."""
        nn.init.zeros_(self.norm.weight)

    def forward(self, feature: Tensor) -> Tensor:
        """Attend over the pixels of (n, c, y, x); same shape."""
        query = self.query(feature).flatten(2).transpose(1, 2)
        key = self.pool(self.key(feature)).flatten(2)
        value = self.pool(self.value(feature)).flatten(2).transpose(1, 2)
        attended = torch.softmax(query @ key, dim=-1) @ value
        attended = attended.transpose(1, 2).unflatten(2, feature.shape[2:])
        normed: Tensor = self.norm(self.out(attended))
        return normed + feature


def _squeeze(channels: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))


def _pools(feature: Tensor) -> tuple[Tensor, Tensor]:
    # global, not the fixed windows of the published code: the same at 512², and any other size
    # works too
    return feature.mean(dim=(2, 3)), feature.amax(dim=(2, 3))


class ChannelAttention(nn.Module):
    """Channel attention on a projected feature: the published block (method.md §3.4).

    Average and maximum each pass the shared perceptron and their own sigmoid, so the weight is in
    [0, 2], and the residual is a 1×1 shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        wide = 2 * out_channels
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
        )
        self.squeeze = _squeeze(wide, round(wide / 4))
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        )
        self.out = nn.Sequential(
            nn.Conv2d(wide, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """From (n, in, y, x) to (n, out, y, x)."""
        wide = self.body(feature)
        average, maximum = _pools(wide)
        beta = torch.sigmoid(self.squeeze(average)) + torch.sigmoid(self.squeeze(maximum))
        result: Tensor = self.out(
            functional.relu(wide * beta[..., None, None] + self.shortcut(feature))
        )
        return result


class LiteralChannelAttention(nn.Module):
    """Eq. 2 as printed: z·β + z with β = σ(MLP(avg) + MLP(max)), then two convolutions."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.squeeze = _squeeze(in_channels, round(in_channels / 4))
        self.out = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, feature: Tensor) -> Tensor:
        """From (n, in, y, x) to (n, out, y, x)."""
        average, maximum = _pools(feature)
        beta = torch.sigmoid(self.squeeze(average) + self.squeeze(maximum))
        result: Tensor = self.out(feature * beta[..., None, None] + feature)
        return result
