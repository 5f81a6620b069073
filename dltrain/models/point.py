"""A point that walks a landscape, where the loss is a function of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["point"]


class Point(nn.Module):
    """Any batch of N inputs to N times the point (N, dimension), which is all that there is to train, in float64."""

    def __init__(self, *, start: Sequence[float]) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.position.expand(len(inputs), -1)


point = Point
