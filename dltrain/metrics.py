"""What is counted beside the loss."""

from collections.abc import Callable

from torch import Tensor

Measure = Callable[[Tensor, Tensor], Tensor]


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of right predictions, a 0-dim tensor on the device.

    Logits are (batch, classes); targets are class indices (batch,) or probabilities (batch, classes).
    """
    labels = targets.argmax(dim=1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(dim=1) == labels).sum()


MEASURES: dict[str, Measure] = {"accuracy": correct}


def measure(name: str) -> Measure:
    """What rows show under a name: a sum over a batch of (outputs, targets)."""
    return MEASURES[name]
