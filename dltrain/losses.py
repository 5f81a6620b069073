"""Losses, and the penalty that is added to them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]

__all__ = ["cross_entropy", "mse", "objective"]


def cross_entropy(*, num_classes: int, label_smoothing: float = 0.0) -> Loss:
    """Mean cross-entropy in nats of logits (batch, classes, ...) and targets.

    Targets are class indices (batch, ...) or probabilities (batch, classes, ...). Label smoothing moves that share of
    the probability evenly to all classes. Raises ValueError for a share outside 0 to 1, and for a single class, of
    which nothing could be learned.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be 2 or more, not {num_classes}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(*one_each(logits, targets), label_smoothing=label_smoothing)

    return loss


def one_each(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Class indices (n,) and their logits (n, classes), where the targets are such and there are several an example.

    On CUDA torch has no deterministic sum of losses of more than two dimensions.
    """
    if logits.ndim == 2 or targets.ndim == logits.ndim:
        return logits, targets
    return logits.movedim(1, -1).flatten(0, -2), targets.flatten()


def mse(*, half: bool = False) -> Loss:
    """Mean squared error over all entries of outputs (batch, outputs, ...) and targets of that shape.

    Targets that are class indices (batch, ...) count as one-hot vectors. `half` halves it, as the course notes do, so
    that its gradient is the error itself.
    """
    factor = 0.5 if half else 1.0

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        wanted = F.one_hot(targets, outputs.shape[1]).movedim(-1, 1) if targets.ndim < outputs.ndim else targets
        return factor * F.mse_loss(outputs, wanted.to(outputs.dtype))

    return loss


def objective(*, function: Callable[[Tensor], Tensor]) -> Loss:
    """The value f(x) + xi.x of a function at points x (batch, dimension), mean over the batch.

    The targets are the noise xi in its slope, of that shape too.
    """
    return lambda points, slopes: (function(points) + (slopes * points).sum(dim=1)).mean()


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
    if l2 == 0:
        return None
    if not weights:
        raise ValueError(f"l2={l2}: the model has no weights to keep small, only biases and norms")
    if not chosen:
        return None
    return lambda: l2 / 2 * torch.stack([weight.square().sum() for weight in chosen]).sum()
