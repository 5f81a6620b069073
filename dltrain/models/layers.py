"""What the networks share: norms, activations and dropouts by name, and a convolution with the first two."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dltrain.models.batch_norm import ScratchBatchNorm

T = TypeVar("T")

NORMS_1D: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "sync_batch": nn.SyncBatchNorm,  # the same weights; statistics of the batches of all ranks together
    "scratch": ScratchBatchNorm,
    "scratch_notes": partial(ScratchBatchNorm, convention="notes"),
    "layer": nn.LayerNorm,
    # Up to 8 groups, none of fewer than four features: one alone would become beta, two only a sign.
    "group": lambda features: nn.GroupNorm(max(1, math.gcd(32, features) // 4), features),
    "none": nn.Identity,
}

NORMS_2D: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "sync_batch": nn.SyncBatchNorm,
    "scratch": ScratchBatchNorm,
    "scratch_notes": lambda channels: ScratchBatchNorm(convention="notes"),  # one statistic a pixel: `infer_sizes`
    "layer": partial(nn.GroupNorm, 1),
    # 32 groups (Wu & He 2018), or as many as a power of two can divide the channels into.
    "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
    "instance": partial(nn.InstanceNorm2d, affine=True),
    "none": nn.Identity,
}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}


class NotesDropout(nn.Module):
    """Dropout of the course notes: each value is kept with probability 1 - ratio in training, all are multiplied by
    1 - ratio in prediction. `nn.Dropout` divides by it in training instead.
    """

    def __init__(self, ratio: float = 0.5) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return inputs * (1 - self.ratio)
        return inputs * (torch.rand_like(inputs, dtype=torch.float32) > self.ratio)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}"


DROPOUTS: dict[str, Callable[[float], nn.Module]] = {"inverted": nn.Dropout, "notes": NotesDropout}


def choose(kind: str, name: str, choices: dict[str, T]) -> T:
    """The choice of that name; ValueError lists them all."""
    if name not in choices:
        raise ValueError(f"{kind} must be one of {', '.join(choices)}, not {name!r}")
    return choices[name]


def norm1d(name: str, num_features: int) -> nn.Module:
    """A norm over vectors (N, num_features); no `instance`: a number alone becomes beta."""
    return choose("norm of vectors", name, NORMS_1D)(num_features)


def norm2d(name: str, channels: int) -> nn.Module:
    """A norm over images (N, channels, H, W)."""
    return choose("norm", name, NORMS_2D)(channels)


def infer_sizes(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Give norms that wait for their first inputs their sizes, by a dry pass over a shape without the batch."""
    if any(is_lazy(parameter) for parameter in model.parameters()):
        with torch.no_grad():
            model.eval()(torch.zeros(1, *input_shape))
        model.train()


def activation(name: str) -> nn.Module:
    return choose("activation", name, ACTIVATIONS)()


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, norm: str, conv_bias: bool
) -> nn.Sequential:
    """(N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride)), for odd kernels."""
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=conv_bias),
        norm2d(norm, out_channels),
        nn.ReLU(),
    )


def require_image_size(model: str, image_size: int, *, at_least: int) -> None:
    if image_size < at_least:
        raise ValueError(f"{model} needs images of at least {at_least} pixels a side, not {image_size}")
