"""Layers that a CPU computes faster in another way than torch does by itself in bfloat16, with the same weights.

The numbers are torch's but for rounding, and an infinite one makes NaN of its neighbours: the step is lost either way.
`scripts/bench/slack.py` measures both ways.
"""

from functools import partial

import torch
from torch import Tensor, nn


def suit(model: nn.Module) -> None:
    """Have a model on a CPU, under autocast to bfloat16, compute its slowest layers in the faster way."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_thin(module):
            module.forward = partial(convolve, module)  # type: ignore[method-assign]
        elif type(module) is nn.AvgPool2d and _halves(module):
            module.forward = partial(halve, module)  # type: ignore[method-assign]


def convolve(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """A convolution of few channels in float32: in bfloat16 the gradient of its bias takes as long as all the rest."""
    if not torch.is_autocast_enabled("cpu"):
        return nn.Conv2d.forward(layer, images)
    with torch.autocast("cpu", enabled=False):
        return nn.Conv2d.forward(layer, images.float()).to(torch.get_autocast_dtype("cpu"))


def halve(layer: nn.AvgPool2d, images: Tensor) -> Tensor:
    """The means of 2x2 pixels as a matrix product of each two rows, which sums in float32 and rounds once, as torch."""
    *others, height, width = images.shape
    if images.dtype != torch.bfloat16 or not images.is_contiguous() or height % 2 or width % 2:
        return nn.AvgPool2d.forward(layer, images)
    quarters = torch.full((width // 2,), 0.25, dtype=images.dtype).diag().repeat_interleave(2, dim=0).repeat(2, 1)
    return (images.view(-1, 2 * width) @ quarters).view(*others, height // 2, width // 2)


def _is_thin(convolution: nn.Conv2d) -> bool:
    """Whether it has fewer channels than the vectors that bfloat16 is fast with, and a bias."""
    return convolution.in_channels < 4 and convolution.out_channels < 16 and convolution.bias is not None


def _halves(pool: nn.AvgPool2d) -> bool:
    """Whether it takes means of 2x2 pixels side by side."""
    sizes = [(size, size) if isinstance(size, int) else tuple(size) for size in (pool.kernel_size, pool.stride)]
    return sizes == [(2, 2), (2, 2)] and pool.padding in (0, (0, 0)) and pool.divisor_override is None
