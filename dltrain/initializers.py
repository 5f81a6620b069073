"""Initial weights of linear layers and convolutions; or those of another model, and which of them are trained.

An initializer fills a weight and a bias in place from a generator. Below, n is the fan-in as torch counts it:
the product of a weight's dimensions but the first.
"""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.conv import _ConvNd

Initializer = Callable[[Tensor, Tensor | None, Generator], None]

__all__ = [
    "constant",
    "default",
    "he_normal",
    "he_uniform",
    "normal",
    "orthogonal",
    "run",
    "xavier_fan_in",
    "xavier_normal",
    "xavier_uniform",
]

LAYERS: dict[str, tuple[type[nn.Linear] | type[_ConvNd], ...]] = {
    "linear": (nn.Linear,),
    "conv": (_ConvNd,),
    "all": (nn.Linear, _ConvNd),
}


@torch.no_grad()
def initialize(model: nn.Module, initializer: Initializer, *, layers: str = "all", generator: Generator) -> None:
    """Fill the chosen layers (`linear`, `conv` or `all`) in registration order; leave the rest alone.

    The generator is the CPU's, so that its state alone decides the weights, whatever device they lie on.
    """
    if layers not in LAYERS:
        raise ValueError(f"layers must be one of {', '.join(LAYERS)}, not {layers}")
    for module in model.modules():
        if isinstance(module, LAYERS[layers]):
            weight = _plain_like(module.weight)
            bias = None if module.bias is None else _plain_like(module.bias)
            initializer(weight, bias, generator)
            module.weight.copy_(weight)
            if module.bias is not None and bias is not None:
                module.bias.copy_(bias)


def default() -> Initializer:
    """Weights and biases from U(-1/sqrt(n), 1/sqrt(n)), as torch's constructors draw them."""

    def fill(weight: Tensor, bias: Tensor | None, generator: Generator) -> None:
        bound = _fan_in(weight) ** -0.5
        weight.uniform_(-bound, bound, generator=generator)
        if bias is not None:
            bias.uniform_(-bound, bound, generator=generator)

    return fill


def normal(*, std: float = 0.01) -> Initializer:
    """Weights from N(0, std^2), biases 0."""
    if not std >= 0:
        raise ValueError(f"std must be 0 or more, not {std}")
    return _zero_bias(nn.init.normal_, std=std)


def constant(*, value: float = 1.0) -> Initializer:
    """All weights the same, biases 0."""
    return _zero_bias(lambda weight, generator: weight.fill_(value))


def xavier_uniform() -> Initializer:
    """Uniform weights of std sqrt(2 / (fan-in + fan-out)), biases 0.

    Source: Glorot and Bengio, https://proceedings.mlr.press/v9/glorot10a.html.
    """
    return _zero_bias(nn.init.xavier_uniform_)


def xavier_normal() -> Initializer:
    """Normal weights of std sqrt(2 / (fan-in + fan-out)), biases 0; source as `xavier_uniform`."""
    return _zero_bias(nn.init.xavier_normal_)


def xavier_fan_in() -> Initializer:
    """Normal weights of std sqrt(1 / n), biases 0: Xavier's in the course notes, for sigmoid and tanh."""
    return _zero_bias(lambda weight, generator: weight.normal_(std=_fan_in(weight) ** -0.5, generator=generator))


def he_uniform() -> Initializer:
    """Uniform weights of std sqrt(2 / n), biases 0, for relu.

    Source: He et al., https://arxiv.org/abs/1502.01852.
    """
    return _zero_bias(nn.init.kaiming_uniform_, nonlinearity="relu")


def he_normal() -> Initializer:
    """Normal weights of std sqrt(2 / n), biases 0, for relu; source as `he_uniform`."""
    return _zero_bias(nn.init.kaiming_normal_, nonlinearity="relu")


def orthogonal() -> Initializer:
    """Orthonormal rows or columns, whichever are fewer (a kernel is a row), biases 0.

    Source: Saxe et al., https://arxiv.org/abs/1312.6120.
    """
    return _zero_bias(nn.init.orthogonal_)


def run(*, path: str | None = None) -> Initializer:
    """The weights of another run, a folder or a name; what it does not have is drawn as by `default`.

    Reading them is for who knows of runs: see `adopt`. Raises ValueError without a path.
    """
    if path is None:
        raise ValueError("init.path must name the run whose weights to begin with")
    return default()


class Adoption(NamedTuple):
    """What became of weights: the names taken, those they lack, those of another shape, and those that no one has."""

    taken: list[str]
    missing: list[str]
    misfitting: list[str]
    extra: list[str]


@torch.no_grad()
def adopt(model: nn.Module, weights: Mapping[str, Tensor]) -> Adoption:
    """Copy into a model every tensor that weights have under its name and in its shape."""
    own = model.state_dict()
    shared = [name for name in own if name in weights]
    taken = [name for name in shared if weights[name].shape == own[name].shape]
    for name in taken:
        own[name].copy_(weights[name])
    missing, extra = [name for name in own if name not in weights], [name for name in weights if name not in own]
    return Adoption(taken, missing, [name for name in shared if name not in taken], extra)


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Have parameters stay as they are: those that a pattern means by their own name or that of a module around them.

    Returns their names. Raises ValueError for a pattern that means none, and where none is left to train.
    """
    named = dict(model.named_parameters())
    frozen: dict[str, None] = {}
    for pattern in patterns:
        meant = [name for name in named if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")]
        if not meant:
            near = get_close_matches(pattern, [*dict(model.named_modules()), *named], n=3, cutoff=0.3)
            raise ValueError(f"{pattern}: no layer or parameter is called so; the nearest are {', '.join(near)}")
        frozen |= dict.fromkeys(meant)
    if named and len(frozen) == len(named):
        raise ValueError("nothing is left to train")
    for name in frozen:
        named[name].requires_grad_(False)
    return list(frozen)


def _zero_bias(fill_weight: Callable[..., Any], **keywords: Any) -> Initializer:
    def fill(weight: Tensor, bias: Tensor | None, generator: Generator) -> None:
        fill_weight(weight, generator=generator, **keywords)
        if bias is not None:
            bias.zero_()

    return fill


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()


def _plain_like(parameter: Tensor) -> Tensor:
    # Neither another device nor another memory format may put the same draws elsewhere.
    return torch.empty(parameter.shape, dtype=parameter.dtype)
