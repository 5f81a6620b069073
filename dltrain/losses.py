"""Losses, and the penalty that is added to them."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]

__all__ = ["cross_entropy"]


def cross_entropy(*, label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy in nats of logits (batch, classes) and targets.

    Targets are class indices (batch,) or probabilities (batch, classes). Label smoothing moves that share of
    the probability evenly to all classes. Raises ValueError for a share outside 0 to 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")
    return partial(F.cross_entropy, label_smoothing=label_smoothing)


def l2_penalty(model: nn.Module, *, l2: float, l2_on: str = "all") -> Callable[[], Tensor] | None:
    """l2 / 2 times the sum of squared weights, without biases and norm parameters; None where l2 is 0.

    `l2_on` is `all` weights or the `last`, the classifier's. Frozen weights do not count.
    """
    if not l2 >= 0:
        raise ValueError(f"l2 must be 0 or more, not {l2}")
    if l2_on not in ("all", "last"):
        raise ValueError(f"l2_on must be all or last, not {l2_on}")
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    chosen = [weight for weight in weights[0 if l2_on == "all" else -1 :] if weight.requires_grad]
    if l2 == 0 or not chosen:
        return None
    return lambda: l2 / 2 * torch.stack([weight.square().sum() for weight in chosen]).sum()
