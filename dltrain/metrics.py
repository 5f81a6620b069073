"""What is counted beside the loss."""

from torch import Tensor


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Number of right predictions, a 0-dim tensor on the device.

    Logits are (batch, classes); targets are class indices (batch,) or probabilities (batch, classes).
    """
    labels = targets.argmax(dim=1) if targets.ndim == logits.ndim else targets
    return (logits.argmax(dim=1) == labels).sum()
