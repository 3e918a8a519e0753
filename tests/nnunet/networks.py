"""nnU-Net's networks, stated anew in plain torch, with the names that its checkpoints have."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class BlockV1(nn.Module):
    def __init__(self, before, after, kernel, stride):
        super().__init__()
        axes = len(kernel)
        padding = [1 if size == 3 else 0 for size in kernel]
        self.conv = CONV[axes](before, after, kernel, stride, padding)
        self.instnorm = NORM[axes](after, affine=True)

    def forward(self, x):
        return functional.leaky_relu(self.instnorm(self.conv(x)), 0.01)


class GroupV1(nn.Module):
    def __init__(self, before, after, kernel, stride, count):
        super().__init__()
        first = BlockV1(before, after, kernel, stride)
        rest = [BlockV1(after, after, kernel, 1) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.blocks(x)


def two_groups_v1(before, after, kernel, stride, count):
    """The bottleneck and every decoder level: the last convolution stands apart."""
    first = GroupV1(before, after, kernel, stride, count - 1)
    return nn.Sequential(first, GroupV1(after, after, kernel, 1, 1))


class UNetV1(nn.Module):
    """Generic_UNet with strided convolutions; level u of its decoder has kernel -(u + 1)."""

    def __init__(self, classes, channels, strides, kernels, count=2):
        super().__init__()
        axes, pools = len(kernels[0]), len(strides)
        context = []
        for k in range(pools):
            before, stride = (channels[k - 1], strides[k - 1]) if k else (1, 1)
            context.append(GroupV1(before, channels[k], kernels[k], stride, count))
        context.append(two_groups_v1(channels[-2], channels[-1], kernels[-1], strides[-1], count))
        levels = [pools - 1 - u for u in range(pools)]
        self.conv_blocks_localization = nn.ModuleList(
            two_groups_v1(2 * channels[level], channels[level], kernels[-(u + 1)], 1, count)
            for u, level in enumerate(levels)
        )
        self.conv_blocks_context = nn.ModuleList(context)
        self.tu = nn.ModuleList(
            UP[axes](channels[i + 1], channels[i], strides[i], strides[i], bias=False)
            for i in levels
        )
        self.seg_outputs = nn.ModuleList(
            CONV[axes](channels[i], classes, 1, bias=False) for i in levels
        )

    def forward(self, x):
        """Logits of every level, full resolution first."""
        skips, outputs = [], []
        for stage in self.conv_blocks_context[:-1]:
            x = stage(x)
            skips.append(x)
        x = self.conv_blocks_context[-1](x)
        for u, localization in enumerate(self.conv_blocks_localization):
            x = localization(torch.cat((self.tu[u](x), skips[-(u + 1)]), 1))
            outputs.append(self.seg_outputs[u](x))
        return outputs[::-1]


class BlockV2(nn.Module):
    def __init__(self, before, after, kernel, stride):
        super().__init__()
        axes = len(kernel)
        padding = [(size - 1) // 2 for size in kernel]
        self.conv = CONV[axes](before, after, kernel, stride, padding)
        self.norm = NORM[axes](after, affine=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, nn.LeakyReLU(0.01))

    def forward(self, x):
        return self.all_modules(x)


class StageV2(nn.Module):
    def __init__(self, before, after, kernel, stride, count):
        super().__init__()
        first = BlockV2(before, after, kernel, stride)
        rest = [BlockV2(after, after, kernel, 1) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x):
        return self.convs(x)


class EncoderV2(nn.Module):
    def __init__(self, channels, strides, kernels, counts):
        super().__init__()
        stages = []
        for k, after in enumerate(channels):
            before, stride = (channels[k - 1], strides[k - 1]) if k else (1, 1)
            stages.append(nn.Sequential(StageV2(before, after, kernels[k], stride, counts[k])))
        self.stages = nn.Sequential(*stages)


class DecoderV2(nn.Module):
    def __init__(self, encoder, classes, channels, strides, kernels, counts):
        super().__init__()
        self.encoder = encoder
        axes = len(kernels[0])
        levels = range(len(strides) - 1, -1, -1)
        self.stages = nn.ModuleList(
            StageV2(2 * channels[level], channels[level], kernels[level], 1, counts[u])
            for u, level in enumerate(levels)
        )
        self.transpconvs = nn.ModuleList(
            UP[axes](channels[i + 1], channels[i], strides[i], strides[i]) for i in levels
        )
        self.seg_layers = nn.ModuleList(CONV[axes](channels[i], classes, 1) for i in levels)


class UNetV2(nn.Module):
    """PlainConvUNet; each decoder level has the kernel of the encoder stage beside it."""

    def __init__(self, classes, channels, strides, kernels, counts, decoder_counts):
        super().__init__()
        self.encoder = EncoderV2(channels, strides, kernels, counts)
        self.decoder = DecoderV2(self.encoder, classes, channels, strides, kernels, decoder_counts)

    def forward(self, x):
        """Logits of every level, full resolution first."""
        skips, outputs = [], []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        decoder = self.decoder
        for u, stage in enumerate(decoder.stages):
            x = stage(torch.cat((decoder.transpconvs[u](x), skips[-(u + 2)]), 1))
            outputs.append(decoder.seg_layers[u](x))
        return outputs[::-1]


class Gate(nn.Module):
    def __init__(self, channels, gating):
        super().__init__()
        self.W = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))
        self.theta = nn.Conv2d(channels, channels, 1)
        self.phi = nn.Conv2d(gating, channels, 1)
        self.psi = nn.Conv2d(channels, 1, 1)

    def forward(self, x, g):
        theta = self.theta(x)
        phi = functional.interpolate(
            self.phi(g), theta.shape[2:], mode="bilinear", align_corners=False
        )
        return self.W(torch.sigmoid(self.psi(torch.relu(theta + phi))) * x)


class DualGate(nn.Module):
    def __init__(self, channels, gating):
        super().__init__()
        self.gate_block_1, self.gate_block_2 = Gate(channels, gating), Gate(channels, gating)
        self.combine_gates = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU()
        )

    def forward(self, x, g):
        return self.combine_gates(torch.cat((self.gate_block_1(x, g), self.gate_block_2(x, g)), 1))


class NonLocal(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inner = channels // 4
        self.g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))
        self.W = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(2))

    def forward(self, x):
        g, theta, phi = (part(x).flatten(2) for part in (self.g, self.theta, self.phi))
        weight = torch.einsum("nci,ncj->nij", theta, phi).softmax(-1)
        y = torch.einsum("nij,ncj->nci", weight, g)
        return self.W(y.reshape(*y.shape[:2], *x.shape[2:])) + x


class Squeezed(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        wide = 2 * after
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, wide, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.conv3 = nn.Conv2d(wide, after, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.fc1, self.fc2 = nn.Linear(wide, round(after / 2)), nn.Linear(round(after / 2), wide)
        self.downchannel = nn.Sequential(
            nn.Conv2d(before, wide, 1, bias=False), nn.BatchNorm2d(wide)
        )

    def forward(self, x):
        u = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        size = tuple(u.shape[2:])
        pools = functional.avg_pool2d(u, size), functional.max_pool2d(u, size)
        average, largest = (
            torch.sigmoid(self.fc2(torch.relu(self.fc1(pool.flatten(1)))))[..., None, None]
            for pool in pools
        )
        v = torch.relu(average * u + largest * u + self.downchannel(x))
        return torch.relu(self.bn3(self.conv3(v)))


class UpBeside(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, 2, 2)

    def forward(self, skip, x):
        return torch.cat((skip, self.up(x)), 1)


class PublishedTeacher(UNetV1):
    """The release of the paper: nnU-Net's whole decoder, of which the deepest level runs."""

    def __init__(self, classes, channels):
        super().__init__(classes, channels, [(2, 2)] * 7, [(3, 3)] * 8)
        c = channels
        self.nonlocal4_2 = NonLocal(2 * c[5])
        self.attentionblock3 = DualGate(c[4], c[5])
        self.attentionblock2 = DualGate(c[3], c[4])
        self.attentionblock1 = DualGate(c[2], c[3])
        levels = zip(("4", "3", "2", "1", "0", "01"), (5, 4, 3, 2, 1, 0), strict=True)
        for name, level in levels:
            setattr(self, f"up{name}", Squeezed(2 * c[level], c[level]))
            setattr(self, f"up_concat{name}", UpBeside(c[level + 1], c[level]))

    def forward(self, x):
        """Logits of the full resolution; the release's ever active dropout is left out."""
        skips = []
        for stage in self.conv_blocks_context[:-1]:
            x = stage(x)
            skips.append(x)
        x = self.conv_blocks_context[-1](x)
        x = self.conv_blocks_localization[0](torch.cat((self.tu[0](x), skips[6]), 1))
        x = self.up4(self.nonlocal4_2(self.up_concat4(skips[5], x)))
        x = self.up3(self.up_concat3(self.attentionblock3(skips[4], x), x))
        x = self.up2(self.up_concat2(self.attentionblock2(skips[3], x), x))
        x = self.up1(self.up_concat1(self.attentionblock1(skips[2], x), x))
        x = self.up0(self.up_concat0(skips[1], x))
        x = self.up01(self.up_concat01(skips[0], x))
        return self.seg_outputs[6](x)


def shaken(network):
    """The network with every number of it, buffers too, drawn at random: none stays at 0 or 1."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator)
                fan = max(1, value[0].numel()) if value.ndim > 1 else 1
                drawn = noise * (1.5 / fan) ** 0.5 if value.ndim > 1 else 0.3 * noise
                if name.endswith("running_var"):
                    drawn = drawn.abs() + 0.5
                if value.ndim == 1 and name.endswith("weight"):
                    drawn = drawn + 1
                value.copy_(drawn)
    return network.eval().requires_grad_(False)
