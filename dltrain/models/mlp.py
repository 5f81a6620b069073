"""A multilayer perceptron on the pixels. Output shapes are those of 1x96x96 images and the default width."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from dltrain.models import layers

__all__ = ["mlp"]


class MLP(nn.Sequential):
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes).

    Dropout follows each hidden activation. No hidden sizes give softmax regression.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (256,),
        activation: str = "relu",
        dropout: float = 0.0,
        dropout_form: str = "inverted",
        norm: str = "none",
    ) -> None:
        super().__init__()
        if any(size < 1 for size in hidden_sizes):
            raise ValueError(f"hidden_sizes must be 1 or more each, not {list(hidden_sizes)}")
        dropping_out = layers.choose("dropout_form", dropout_form, layers.DROPOUTS)

        def hidden(in_features: int, out_features: int) -> list[nn.Module]:
            affine = nn.Linear(in_features, out_features)
            modules = [affine, layers.norm1d(norm, out_features), layers.activation(activation)]
            return [*modules, dropping_out(dropout)] if dropout else modules

        sizes = [in_channels * image_size * image_size, *hidden_sizes]
        self.flatten = nn.Flatten()  # 9216
        self.hidden = nn.Sequential(*(m for pair in pairwise(sizes) for m in hidden(*pair)))  # 256
        self.output = nn.Linear(sizes[-1], num_classes)  # 10


mlp = MLP
