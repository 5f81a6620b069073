"""What is counted beside the loss."""

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of right predictions, a 0-dim tensor on the device.

    Logits are (batch, classes); targets are class indices (batch,) or probabilities (batch, classes).
    """
    labels = targets.argmax(dim=1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(dim=1) == labels).sum()


def coordinate(points: Tensor, _: Tensor, *, place: int) -> Tensor:
    """Sum of one coordinate of points (batch, dimension), the first being number 0."""
    return points[:, place].sum()


MEASURES: dict[str, Measure] = {"accuracy": correct}


def measure(name: str) -> Measure:
    """What rows show under a name: a sum over a batch of (outputs, targets). x1, x2, ... are coordinates of outputs."""
    if found := re.fullmatch(r"x([1-9]\d*)", name):
        return partial(coordinate, place=int(found[1]) - 1)
    return MEASURES[name]
