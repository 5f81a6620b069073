"""What is measured beside the loss."""

import math
import re
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Sum = Callable[[Tensor, Tensor], Tensor]
LARGEST_EXPONENT = math.log(sys.float_info.max)


class Measure(NamedTuple):
    """A sum over a batch's examples of (outputs, targets), and what rows show of its mean over all examples."""

    sum: Sum
    shown: Callable[[float], float] = float


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of right predictions, a 0-dim tensor on the device.

    Logits are (batch, classes); targets are class indices (batch,) or probabilities (batch, classes).
    """
    labels = targets.argmax(dim=1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(dim=1) == labels).sum()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log q(target) in nats, a mean over an example's tokens and a sum over the batch.

    Logits are (batch, classes, ...); targets are class indices (batch, ...) or probabilities as the logits. Unlike a
    loss it knows of no smoothing and no penalty.
    """
    if targets.ndim == logits.ndim:
        return F.cross_entropy(_at_least_float32(logits), targets) * len(logits)
    # Not torch's own, which on CUDA has no deterministic sum over the tokens of an example.
    nats: Tensor = -_at_least_float32(logits).log_softmax(1).gather(1, targets.unsqueeze(1))
    return nats.mean() * len(logits)


def entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum p log p in nats of the predicted distributions, a mean over an example's tokens and a sum over the batch.

    Logits are (batch, classes, ...).
    """
    probabilities = _at_least_float32(logits).softmax(1)
    each: Tensor = torch.special.entr(probabilities)
    return each.sum(1).mean() * len(logits)


def perplexity(nats: float) -> float:
    """Exp of a mean cross-entropy: among how many tokens, all as likely, one would guess as badly."""
    return math.exp(nats) if nats < LARGEST_EXPONENT else math.inf


def bits(nats: float) -> float:
    """The same information in bits."""
    return nats / math.log(2)


def coordinate(points: Tensor, _: Tensor, *, place: int) -> Tensor:
    """Sum of one coordinate of points (batch, dimension), the first being number 0."""
    return points[:, place].sum()


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(correct),
    "perplexity": Measure(cross_entropy, perplexity),
    "bits": Measure(cross_entropy, bits),
    "entropy": Measure(entropy),
}


def measure(name: str) -> Measure:
    """The measure of a name; x1, x2, ... are coordinates of the outputs."""
    if found := re.fullmatch(r"x([1-9]\d*)", name):
        return Measure(partial(coordinate, place=int(found[1]) - 1))
    return MEASURES[name]
