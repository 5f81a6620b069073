from torch import nn


class Tiny(nn.Sequential):
    def __init__(self, *, in_channels: int, image_size: int, num_classes: int, width: int = 16) -> None:
        inputs = in_channels * image_size * image_size
        super().__init__(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, num_classes))
