"""The paper's student for nnU-Net v2, which finds it by the name in plans.json.

nnU-Net v2 gives the topmost decoder stage the kernel of the topmost encoder stage, and transposed
convolutions and heads a bias. The published student comes from nnU-Net v1, which does neither; here
the two are made alike, so that both sides compute the same and no more. Only torch and nnU-Net's
own networks are needed, so that an environment without flarekd can import it.
"""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet as _Plain
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn


class PlainConvUNet(_Plain):
    """nnU-Net v2's plain U-Net in the shape of v1: 5,644,256 parameters with 15 outputs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        as_published(self)


def as_published(network: Any) -> nn.Module:
    """Change a PlainConvUNet of nnU-Net v2 into v1's, in place."""
    encoder, decoder = network.encoder, network.decoder
    for layer in [*decoder.transpconvs, *decoder.seg_layers]:
        layer.bias = None
    if encoder.conv_op is nn.Conv3d:
        width = encoder.output_channels[0]
        decoder.stages[-1] = StackedConvBlocks(
            2,
            encoder.conv_op,
            2 * width,
            width,
            [3, 3, 3],
            1,
            encoder.conv_bias,
            encoder.norm_op,
            encoder.norm_op_kwargs,
            nonlin=encoder.nonlin,
            nonlin_kwargs=encoder.nonlin_kwargs,
        )
    network.apply(network.initialize)
    changed: nn.Module = network
    return changed
