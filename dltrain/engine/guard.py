"""Taking a step back where it was not finite, without waiting for the device."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
Pair = tuple[list[Tensor], list[Tensor]]


class Guard:
    """Remembers tensors, and puts them back where a flag on the device is false."""

    def __init__(self) -> None:
        self.tensors: Sequence[Tensor] = ()
        self.copies: list[Tensor] = []

    @torch.no_grad()
    def remember(self, tensors: Sequence[Tensor]) -> None:
        """Copy tensors, into the copies of the time before where there are any."""
        if self.copies and len(self.copies) == len(tensors):
            for now, before in by_format(tensors, self.copies):
                torch._foreach_copy_(before, now)
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
        if good.device.type == "cuda":  # where each operation costs, however small its tensors
            for now, before in by_format(self.tensors, self.copies):
                choose(good, now, before)
            return
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            torch.where(good.to(tensor.device), tensor, copy, out=tensor)


def by_format(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> list[Pair]:
    """Tensors and their copies, those of a device and a number format together: mixed ones are handled one by one."""
    pairs: dict[object, Pair] = defaultdict(lambda: ([], []))
    for tensor, copy in zip(tensors, copies, strict=True):
        now, before = pairs[tensor.device, tensor.dtype]
        now.append(tensor)
        before.append(copy)
    return list(pairs.values())


def choose(good: Tensor, now: list[Tensor], before: list[Tensor]) -> None:
    """In place of `now`, which stays where the flag is true, what was `before`: tensors of one number format.

    There is no `where` over lists of tensors. Their bits times one and zero are exact, of NaN and infinity, too.
    """
    bits = BITS[now[0].element_size()]
    kept, old = ([tensor.view(bits) for tensor in tensors] for tensors in (now, before))
    stays = good.to(now[0].device, bits)
    torch._foreach_mul_(kept, stays)
    torch._foreach_add_(kept, torch._foreach_mul(old, 1 - stays))


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all numbers are finite, as a flag on the device."""
    if tensors[0].device.type == "cpu":  # where a sum takes half the time of a norm
        return torch.isfinite(torch.stack([tensor.sum() for tensor in tensors])).all()
    return torch.isfinite(get_total_norm(tensors))
