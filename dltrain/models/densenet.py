"""Densely connected networks (Huang et al. 2016; course notes).

Output shapes are those of `densenet` on 96x96 images. `densenet121` and `densenet169` are torchvision's.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from dltrain.models.layers import conv_norm_relu, infer_sizes, norm2d, require_image_size

__all__ = ["densenet", "densenet121", "densenet169"]


def norm_relu_conv(
    in_channels: int, out_channels: int, kernel_size: int, *, norm: str, conv_bias: bool
) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=conv_bias)
    return nn.Sequential(norm2d(norm, in_channels), nn.ReLU(), convolution)


def plain(in_channels: int, growth: int, *, norm: str, conv_bias: bool) -> nn.Module:
    return norm_relu_conv(in_channels, growth, 3, norm=norm, conv_bias=conv_bias)


def bottleneck(in_channels: int, growth: int, *, norm: str, conv_bias: bool) -> nn.Module:
    return nn.Sequential(
        norm_relu_conv(in_channels, 4 * growth, 1, norm=norm, conv_bias=conv_bias),
        norm_relu_conv(4 * growth, growth, 3, norm=norm, conv_bias=conv_bias),
    )


class DenseBlock(nn.Module):
    """Each layer sees all that came before and appends `growth` channels to it."""

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        in_channels: int,
        depth: int,
        *,
        growth: int,
        norm: str,
        conv_bias: bool,
    ) -> None:
        super().__init__()
        widths = range(in_channels, in_channels + depth * growth, growth)
        self.layers = nn.ModuleList(layer(width, growth, norm=norm, conv_bias=conv_bias) for width in widths)
        self.out_channels = in_channels + depth * growth

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = torch.cat([features, layer(features)], dim=1)
        return features


class Transition(nn.Sequential):
    """Halves the channels and the side."""

    def __init__(self, in_channels: int, *, norm: str, conv_bias: bool) -> None:
        super().__init__()
        self.out_channels = in_channels // 2
        self.conv = norm_relu_conv(in_channels, self.out_channels, 1, norm=norm, conv_bias=conv_bias)
        self.pool = nn.AvgPool2d(2)


class DenseNet(nn.Sequential):
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    `blocks` is the number of layers in each of the four dense blocks.
    """

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        growth: int = 32,
        blocks: Sequence[int] = (4, 4, 4, 4),
        norm: str = "batch",
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        require_image_size("densenet", image_size, at_least=29)
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(f"blocks must be four numbers of layers, 1 or more each, not {list(blocks)}")
        if growth < 1:
            raise ValueError(f"growth must be 1 or more, not {growth}")
        block = partial(DenseBlock, layer, growth=growth, norm=norm, conv_bias=conv_bias)
        transition = partial(Transition, norm=norm, conv_bias=conv_bias)

        self.stem = conv_norm_relu(in_channels, 64, 7, stride=2, norm=norm, conv_bias=conv_bias)  # 64x48x48
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)  # 64x24x24
        self.block1 = block(64, blocks[0])  # 192x24x24
        self.transition1 = transition(self.block1.out_channels)  # 96x12x12
        self.block2 = block(self.transition1.out_channels, blocks[1])  # 224x12x12
        self.transition2 = transition(self.block2.out_channels)  # 112x6x6
        self.block3 = block(self.transition2.out_channels, blocks[2])  # 240x6x6
        self.transition3 = transition(self.block3.out_channels)  # 120x3x3
        self.block4 = block(self.transition3.out_channels, blocks[3])  # 248x3x3
        self.norm = norm2d(norm, self.block4.out_channels)  # 248x3x3
        self.relu = nn.ReLU()  # 248x3x3
        self.pooled = nn.AdaptiveAvgPool2d(1)  # 248x1x1
        self.flatten = nn.Flatten()  # 248
        self.output = nn.Linear(self.block4.out_channels, num_classes)  # 10
        infer_sizes(self, (in_channels, image_size, image_size))


densenet = partial(DenseNet, plain)
densenet121 = partial(DenseNet, bottleneck, blocks=(6, 12, 24, 16), conv_bias=False)
densenet169 = partial(DenseNet, bottleneck, blocks=(6, 12, 32, 32), conv_bias=False)
