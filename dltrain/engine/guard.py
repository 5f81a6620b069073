"""Taking a step back where it was not finite, without waiting for the device."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


class Guard:
    """Remembers tensors, and puts them back where a flag on the device is false."""

    def __init__(self) -> None:
        self.tensors: Sequence[Tensor] = ()
        self.copies: list[Tensor] = []

    @torch.no_grad()
    def remember(self, tensors: Sequence[Tensor]) -> None:
        """Copy tensors, into the copies of the time before where there are any."""
        if self.copies and len(self.copies) == len(tensors):
            torch._foreach_copy_(self.copies, list(tensors))
        else:
            self.tensors, self.copies = (), []
            self.copies = [tensor.clone() for tensor in tensors]
        self.tensors = tensors

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what was remembered."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            tensor.copy_(copy)

    @torch.no_grad()
    def restore_unless(self, good: Tensor) -> None:
        """Put back what was remembered, unless the flag is true."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            torch.where(good.to(tensor.device), tensor, copy, out=tensor)


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all numbers are finite, as a flag on the device."""
    if tensors[0].device.type == "cpu":  # where a sum takes half the time of a norm
        return torch.isfinite(torch.stack([tensor.sum() for tensor in tensors])).all()
    return torch.isfinite(get_total_norm(tensors))
