"""Affine maps of pixels or features. Output shapes are those of 1x96x96 images and the default width."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from dltrain.models import layers

__all__ = ["linear", "mlp"]


class MLP(nn.Sequential):
    """Inputs (N, *input_shape), such as images or vectors, to outputs (N, num_outputs), such as logits.

    Dropout follows each hidden activation. No hidden sizes give softmax regression.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        num_outputs: int,
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

        sizes = [math.prod(input_shape), *hidden_sizes]
        self.flatten = nn.Flatten()  # 9216
        self.hidden = nn.Sequential(*(m for pair in pairwise(sizes) for m in hidden(*pair)))  # 256
        self.output = nn.Linear(sizes[-1], num_outputs)  # 10


mlp = MLP


class Linear(nn.Sequential):
    """Inputs (N, *input_shape) to outputs (N, num_outputs): linear or, of logits, softmax regression."""

    def __init__(self, *, input_shape: Sequence[int], num_outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.flatten = nn.Flatten()  # 9216
        self.output = nn.Linear(math.prod(input_shape), num_outputs, bias=bias)  # 10


linear = Linear
