"""What the networks share: norms and activations by name, and a convolution with both."""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

T = TypeVar("T")

NORMS_1D: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "none": nn.Identity,
}

NORMS_2D: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": partial(nn.GroupNorm, 1),
    # 32 groups (Wu & He 2018), or as many as a power of two can divide the channels into.
    "group": lambda channels: nn.GroupNorm(math.gcd(32, channels), channels),
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


def choose(kind: str, name: str, choices: dict[str, T]) -> T:
    """The choice of that name; ValueError lists them all."""
    if name not in choices:
        raise ValueError(f"{kind} must be one of {', '.join(choices)}, not {name!r}")
    return choices[name]


def norm1d(name: str, num_features: int) -> nn.Module:
    """A norm over vectors (N, num_features)."""
    return choose("norm", name, NORMS_1D)(num_features)


def norm2d(name: str, channels: int) -> nn.Module:
    """A norm over images (N, channels, H, W)."""
    return choose("norm", name, NORMS_2D)(channels)


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
