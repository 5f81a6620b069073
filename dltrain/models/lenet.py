"""LeNet with batch norm (LeCun et al. 1998; course notes), and a small one. Output shapes are those of 96x96 images.

`norm=instance` is instance norm after convolutions, and layer norm after linear layers, where it has no meaning.
"""

from torch import nn

from dltrain.models import layers

__all__ = ["lenet", "small_lenet"]

POOLS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def conv(in_channels: int, out_channels: int, *, norm: str, activation: str) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=5)
    return nn.Sequential(convolution, layers.norm2d(norm, out_channels), layers.activation(activation))


def linear(in_features: int, out_features: int, *, norm: str, activation: str) -> nn.Sequential:
    affine = nn.Linear(in_features, out_features)
    norm = "layer" if norm == "instance" else norm
    return nn.Sequential(affine, layers.norm1d(norm, out_features), layers.activation(activation))


class LeNet(nn.Sequential):
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes)."""

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        norm: str = "batch",
        activation: str = "sigmoid",
        pool: str = "avg",
    ) -> None:
        super().__init__()
        layers.require_image_size("lenet", image_size, at_least=16)
        side = ((image_size - 4) // 2 - 4) // 2
        pooling = layers.choose("pool", pool, POOLS)
        chosen = {"norm": norm, "activation": activation}

        self.conv1 = conv(in_channels, 6, **chosen)  # 6x92x92
        self.pool1 = pooling(2)  # 6x46x46
        self.conv2 = conv(6, 16, **chosen)  # 16x42x42
        self.pool2 = pooling(2)  # 16x21x21
        self.flatten = nn.Flatten()  # 7056
        self.linear1 = linear(16 * side * side, 120, **chosen)  # 120
        self.linear2 = linear(120, 84, **chosen)  # 84
        self.output = nn.Linear(84, num_classes)  # 10
        layers.infer_sizes(self, (in_channels, image_size, image_size))


class SmallLeNet(nn.Sequential):
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    The notes train it on two classes, with batch norm and without.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        norm: str = "batch",
        activation: str = "sigmoid",
        pool: str = "avg",
    ) -> None:
        super().__init__()
        layers.require_image_size("small_lenet", image_size, at_least=6)
        side = (image_size - 4) // 2
        pooling = layers.choose("pool", pool, POOLS)
        chosen = {"norm": norm, "activation": activation}

        self.conv = conv(in_channels, 6, **chosen)  # 6x92x92
        self.pool = pooling(2)  # 6x46x46
        self.flatten = nn.Flatten()  # 12696
        self.linear = linear(6 * side * side, 10, **chosen)  # 10
        self.output = nn.Linear(10, num_classes)  # 10
        layers.infer_sizes(self, (in_channels, image_size, image_size))


lenet = LeNet
small_lenet = SmallLeNet
