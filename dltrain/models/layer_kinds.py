"""The kinds of layers that `model=sequential` knows, each made for the inputs it gets.

The first argument of a kind is what it gets; the others are the keys that a user may write, the first of them also
alone, as in `conv: 6`. All raise ValueError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from torch import Tensor, nn

from dltrain.models import densenet, layers, resnet
from dltrain.models.convolution import PADDING_MODES, Size, output_side, pair
from dltrain.models.own_layers import CenteredLayer, MyLinear

BRANCHES = {"basic": resnet.basic, "bottleneck": resnet.bottleneck}
DENSE_LAYERS = {"plain": densenet.plain, "bottleneck": densenet.bottleneck}


def words(shape: Sequence[int]) -> str:
    """A shape as it is read, such as 6x12x12."""
    return "x".join(map(str, shape)) or "single numbers"


@dataclass(frozen=True)
class Inputs:
    """What a layer gets: a shape without the batch; and what makes a list of layers a module that gets the same."""

    shape: tuple[int, ...]
    chain: Callable[[Sequence[Any]], nn.Module]

    def channels(self) -> int:
        """Of images; other inputs are refused."""
        if len(self.shape) != 3:
            raise ValueError("it takes images, channels x height x width")
        return self.shape[0]

    def features(self) -> int:
        """Of vectors, or of each vector of a sequence; images are refused."""
        if len(self.shape) not in (1, 2):
            raise ValueError(f"it takes vectors, such as flatten would make of {prod(self.shape)} features")
        return self.shape[-1]

    def fits(self, kernel: tuple[int, int], *, padding: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> None:
        """Refuse a window that is larger than these images."""
        self.channels()
        for side, k, p, d in zip(self.shape[1:], kernel, padding, dilation, strict=True):
            output_side(side, k, padding=p, dilation=d)


def linear(inputs: Inputs, *, features: int, bias: bool = True) -> nn.Module:
    inputs.features()
    return nn.LazyLinear(count("features", features), bias=switch("bias", bias))


def my_linear(inputs: Inputs, *, units: int) -> nn.Module:
    return MyLinear(inputs.features(), count("units", units))


def conv(
    inputs: Inputs,
    *,
    channels: int,
    kernel: Size = 3,
    padding: Size = 0,
    stride: Size = 1,
    dilation: Size = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    bias: bool = True,
) -> nn.Module:
    if inputs.channels() % count("groups", groups) or count("channels", channels) % groups:
        raise ValueError(f"groups={groups} must divide its {inputs.channels()} channels and the {channels} it makes")
    window, spread = sides("kernel", kernel), sides("dilation", dilation)
    added = sides("padding", padding, least=0)
    inputs.fits(window, padding=added, dilation=spread)
    layers.choose("padding_mode", padding_mode, PADDING_MODES)
    how: dict[str, Any] = {"stride": sides("stride", stride), "padding": added, "padding_mode": padding_mode}
    return nn.LazyConv2d(channels, window, **how, dilation=spread, groups=groups, bias=switch("bias", bias))


def pool(
    kind: Callable[..., nn.Module], inputs: Inputs, *, kernel: Size = 2, stride: Size | None = None, padding: Size = 0
) -> nn.Module:
    window, added = sides("kernel", kernel), sides("padding", padding, least=0)
    inputs.fits(window, padding=added)
    return kind(window, stride=window if stride is None else sides("stride", stride), padding=added)


def global_avg_pool(inputs: Inputs) -> nn.Module:
    inputs.channels()
    return nn.AdaptiveAvgPool2d(1)


def norm(inputs: Inputs, *, kind: str = "batch") -> nn.Module:
    of_images = len(inputs.shape) == 3
    return layers.norm2d(kind, inputs.channels()) if of_images else layers.norm1d(kind, inputs.features())


def dropout(inputs: Inputs, *, ratio: float = 0.5, form: str = "inverted") -> nn.Module:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise ValueError(f"ratio must be a number from 0 to below 1, not {ratio!r}")
    return layers.choose("form", form, layers.DROPOUTS)(ratio)


class Shortcut(nn.Module):
    """The sum of a branch's outputs and its inputs."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.branch(inputs)
        if outputs.shape != inputs.shape:
            raise ValueError(f"its layers make {words(outputs.shape[1:])}, and must keep the shape")
        return outputs + inputs


def shortcut(inputs: Inputs, *, layers: Sequence[Any]) -> nn.Module:
    return Shortcut(inputs.chain(layers))


def residual(
    inputs: Inputs,
    *,
    channels: int,
    depth: int = 1,
    stride: int = 1,
    block: str = "basic",
    norm: str = "batch",
    shortcut: bool = True,
    projection_norm: bool = False,
    conv_bias: bool = True,
) -> nn.Module:
    branch = layers.choose("block", block, BRANCHES)
    if block == "bottleneck" and channels % 4:
        raise ValueError(f"channels must be a multiple of 4 for block=bottleneck, not {channels}")
    how: dict[str, Any] = {"shortcut": switch("shortcut", shortcut), "conv_bias": switch("conv_bias", conv_bias)}
    made = partial(resnet.ResidualBlock, branch, norm=norm, projection_norm=projection_norm, **how)
    sizes = inputs.channels(), count("channels", channels), count("depth", depth)
    return resnet.stage(made, *sizes, stride=count("stride", stride))


def dense_block(
    inputs: Inputs,
    *,
    depth: int,
    growth: int = 32,
    layer: str = "plain",
    norm: str = "batch",
    conv_bias: bool = True,
) -> nn.Module:
    made = layers.choose("layer", layer, DENSE_LAYERS)
    sizes = {"growth": count("growth", growth), "conv_bias": switch("conv_bias", conv_bias)}
    return densenet.DenseBlock(made, inputs.channels(), count("depth", depth), norm=norm, **sizes)  # type: ignore[arg-type]


def transition(inputs: Inputs, *, norm: str = "batch", conv_bias: bool = True) -> nn.Module:
    inputs.fits((2, 2), padding=(0, 0))
    return densenet.Transition(inputs.channels(), norm=norm, conv_bias=switch("conv_bias", conv_bias))


def count(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more, not {value!r}")
    return value


def sides(name: str, value: Any, *, least: int = 1) -> tuple[int, int]:
    """Height and width, given as one whole number or as a pair."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and (not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2):
        raise ValueError(f"{name} must be a whole number or a pair [height, width], not {value!r}")
    height, width = pair(value)
    return count(name, height, least=least), count(name, width, least=least)


def switch(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return value


def without_keys(make: Callable[[], nn.Module]) -> Callable[[Inputs], nn.Module]:
    """A kind that any inputs suit."""
    return lambda inputs: make()


KINDS: dict[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "conv": conv,
    "max_pool": partial(pool, nn.MaxPool2d),
    "avg_pool": partial(pool, nn.AvgPool2d),
    "global_avg_pool": global_avg_pool,
    "norm": norm,
    **{name: without_keys(make) for name, make in layers.ACTIVATIONS.items()},
    "dropout": dropout,
    "flatten": without_keys(nn.Flatten),
    "centered": without_keys(CenteredLayer),
    "my_linear": my_linear,
    "shortcut": shortcut,
    "residual": residual,
    "dense_block": dense_block,
    "transition": transition,
}
