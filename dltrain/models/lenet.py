"""LeNet with batch norm (LeCun et al. 1998; course notes). Output shapes are those of 96x96 images."""

from torch import nn

from dltrain.models import layers

__all__ = ["lenet"]

POOLS: dict[str, type[nn.Module]] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


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

        def conv(in_channels: int, out_channels: int) -> nn.Sequential:
            convolution = nn.Conv2d(in_channels, out_channels, kernel_size=5)
            return nn.Sequential(convolution, layers.norm2d(norm, out_channels), layers.activation(activation))

        def linear(in_features: int, out_features: int) -> nn.Sequential:
            affine = nn.Linear(in_features, out_features)
            return nn.Sequential(affine, layers.norm1d(norm, out_features), layers.activation(activation))

        self.conv1 = conv(in_channels, 6)  # 6x92x92
        self.pool1 = pooling(2)  # 6x46x46
        self.conv2 = conv(6, 16)  # 16x42x42
        self.pool2 = pooling(2)  # 16x21x21
        self.flatten = nn.Flatten()  # 7056
        self.linear1 = linear(16 * side * side, 120)  # 120
        self.linear2 = linear(120, 84)  # 84
        self.output = nn.Linear(84, num_classes)  # 10


lenet = LeNet
