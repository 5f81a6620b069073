"""Residual networks (He et al. 2015; course notes). Output shapes are those of resnet18 on 96x96 images.

With `projection_norm=True, conv_bias=False` they are torchvision's.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import relu

from dltrain.models.layers import choose, conv_norm_relu, infer_sizes, norm2d, require_image_size

__all__ = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]

STEMS = {"imagenet": (7, 2), "cifar": (3, 1)}  # kernel size and stride; only the first pools after it


def basic(in_channels: int, out_channels: int, *, stride: int, norm: str, conv_bias: bool) -> nn.Sequential:
    return nn.Sequential(
        conv_norm_relu(in_channels, out_channels, 3, stride=stride, norm=norm, conv_bias=conv_bias),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=conv_bias),
        norm2d(norm, out_channels),
    )


def bottleneck(in_channels: int, out_channels: int, *, stride: int, norm: str, conv_bias: bool) -> nn.Sequential:
    """The stride is in the 3x3 convolution, as in torchvision; in the paper it is in the first."""
    channels = out_channels // 4
    return nn.Sequential(
        conv_norm_relu(in_channels, channels, 1, norm=norm, conv_bias=conv_bias),
        conv_norm_relu(channels, channels, 3, stride=stride, norm=norm, conv_bias=conv_bias),
        nn.Conv2d(channels, out_channels, 1, bias=conv_bias),
        norm2d(norm, out_channels),
    )


class ResidualBlock(nn.Module):
    """relu(branch(x) + x), with a 1x1 convolution on x where the shape changes; or no shortcut at all."""

    def __init__(
        self,
        branch: Callable[..., nn.Module],
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        norm: str,
        shortcut: bool,
        projection_norm: bool,
        conv_bias: bool,
    ) -> None:
        super().__init__()
        self.branch = branch(in_channels, out_channels, stride=stride, norm=norm, conv_bias=conv_bias)
        self.shortcut: nn.Module | None = None
        if shortcut and (stride != 1 or in_channels != out_channels):
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=conv_bias)
            self.shortcut = nn.Sequential(projection, norm2d(norm if projection_norm else "none", out_channels))
        elif shortcut:
            self.shortcut = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        residual = self.branch(images)
        return relu(residual if self.shortcut is None else residual + self.shortcut(images))


def stage(
    block: Callable[..., nn.Module], in_channels: int, out_channels: int, depth: int, *, stride: int = 1
) -> nn.Sequential:
    first = block(in_channels, out_channels, stride=stride)
    return nn.Sequential(first, *(block(out_channels, out_channels) for _ in range(depth - 1)))


class ResNet(nn.Sequential):
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    `width` is the number of channels the first stage gives; each later one doubles it and halves the side.
    """

    def __init__(
        self,
        branch: Callable[..., nn.Module],
        depths: Sequence[int],
        width: int,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        norm: str = "batch",
        stem: str = "imagenet",
        shortcut: bool = True,
        projection_norm: bool = False,
        conv_bias: bool = True,
    ) -> None:
        super().__init__()
        require_image_size("a residual network", image_size, at_least=1)
        kernel_size, stride = choose("stem", stem, STEMS)
        conv = partial(conv_norm_relu, norm=norm, conv_bias=conv_bias)
        block = partial(ResidualBlock, branch, norm=norm, conv_bias=conv_bias)
        block = partial(block, shortcut=shortcut, projection_norm=projection_norm)

        self.stem = conv(in_channels, 64, kernel_size, stride=stride)  # 64x48x48
        if stem == "imagenet":
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)  # 64x24x24
        self.stage1 = stage(block, 64, width, depths[0])  # 64x24x24
        self.stage2 = stage(block, width, 2 * width, depths[1], stride=2)  # 128x12x12
        self.stage3 = stage(block, 2 * width, 4 * width, depths[2], stride=2)  # 256x6x6
        self.stage4 = stage(block, 4 * width, 8 * width, depths[3], stride=2)  # 512x3x3
        self.pooled = nn.AdaptiveAvgPool2d(1)  # 512x1x1
        self.flatten = nn.Flatten()  # 512
        self.output = nn.Linear(8 * width, num_classes)  # 10
        infer_sizes(self, (in_channels, image_size, image_size))


resnet18 = partial(ResNet, basic, (2, 2, 2, 2), 64)
resnet34 = partial(ResNet, basic, (3, 4, 6, 3), 64)
resnet50 = partial(ResNet, bottleneck, (3, 4, 6, 3), 256)
resnet101 = partial(ResNet, bottleneck, (3, 4, 23, 3), 256)
resnet152 = partial(ResNet, bottleneck, (3, 8, 36, 3), 256)
