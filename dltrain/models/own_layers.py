"""Layers of one's own (course notes): one without parameters, and one with."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class CenteredLayer(nn.Module):
    """Inputs of any shape minus the mean over all of them, examples included; so of each batch alone."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean()


class MyLinear(nn.Module):
    """Inputs (N, in_features) to relu(X W + b), (N, units); W and b are standard normal.

    The notes compute with `.data`, so that theirs never learns; this one does.
    """

    def __init__(self, in_features: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(in_features, units))
        self.bias = nn.Parameter(torch.randn(units))

    def forward(self, inputs: Tensor) -> Tensor:
        return relu(inputs @ self.weight + self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.weight.shape[0]}, units={self.weight.shape[1]}"
