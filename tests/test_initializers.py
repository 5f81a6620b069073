"""Initial weights against the standard deviations of the course notes."""

import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Generator, nn

from dltrain import initializers
from dltrain.initializers import Initializer, initialize

Layer = TypeVar("Layer", bound=nn.Module)
DRAWN = [name for name in initializers.__all__ if name != "run"]  # which reads
UNIFORM = 1 / math.sqrt(3)  # standard deviation of U(-1, 1)


def drawn(initializer: Initializer, layer: Layer, *, seed: int = 0, layers: str = "all") -> Layer:
    initialize(layer, initializer, layers=layers, generator=Generator().manual_seed(seed))
    return layer


@pytest.mark.parametrize(
    ("initializer", "std"),
    [
        (initializers.default(), lambda n, out: UNIFORM / math.sqrt(n)),
        (initializers.normal(), lambda n, out: 0.01),
        (initializers.normal(std=0.3), lambda n, out: 0.3),
        (initializers.xavier_uniform(), lambda n, out: math.sqrt(2 / (n + out))),
        (initializers.xavier_normal(), lambda n, out: math.sqrt(2 / (n + out))),
        (initializers.xavier_fan_in(), lambda n, out: math.sqrt(1 / n)),
        (initializers.he_uniform(), lambda n, out: math.sqrt(2 / n)),
        (initializers.he_normal(), lambda n, out: math.sqrt(2 / n)),
    ],
)
@pytest.mark.parametrize("conv", [False, True])
def test_standard_deviation(initializer: Initializer, std: Callable[[int, int], float], conv: bool) -> None:
    layer = nn.Conv2d(32, 256, 3) if conv else nn.Linear(288, 256)
    fan_out = 256 * 9 if conv else 256
    drawn(initializer, layer)
    assert layer.weight.std().item() == pytest.approx(std(288, fan_out), rel=0.02)
    assert abs(layer.weight.mean().item()) < 0.02 * layer.weight.std().item()


@pytest.mark.parametrize("name", [name for name in DRAWN if name != "default"])
def test_biases_are_zero(name: str) -> None:
    layer = nn.Linear(5, 4)
    drawn(getattr(initializers, name)(), layer)
    assert not layer.bias.any()
    assert layer.weight.all()


def test_default_is_torchs_own() -> None:
    layer = nn.Conv2d(4, 64, 5)
    drawn(initializers.default(), layer)
    bound = 1 / math.sqrt(100)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= bound
        assert parameter.abs().max() > 0.9 * bound
    ours = drawn(initializers.default(), nn.Linear(9, 4), seed=3)
    torch.manual_seed(3)
    theirs = nn.Linear(9, 4)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_constant() -> None:
    layer = nn.Linear(3, 2)
    drawn(initializers.constant(), layer)
    assert torch.equal(layer.weight, torch.ones(2, 3))
    drawn(initializers.constant(value=0.5), layer)
    assert torch.equal(layer.weight, torch.full((2, 3), 0.5))


@pytest.mark.parametrize("layer", [nn.Linear(6, 20), nn.Linear(20, 6), nn.Conv2d(3, 8, 3)])
def test_orthogonal(layer: nn.Linear | nn.Conv2d) -> None:
    drawn(initializers.orthogonal(), layer.double())
    matrix = layer.weight.flatten(1)
    singular_values = torch.linalg.svdvals(matrix)
    torch.testing.assert_close(singular_values, torch.ones_like(singular_values))


@pytest.mark.parametrize(("layers", "changed"), [("linear", {"3"}), ("conv", {"0"}), ("all", {"0", "3"})])
def test_layers_choose_and_norms_stay(layers: str, changed: set[str]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.LayerNorm([2, 3, 3]), nn.Linear(3, 2))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    drawn(initializers.normal(std=5.0), model, layers=layers)
    after = dict(model.named_parameters())
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == changed


@pytest.mark.parametrize("name", DRAWN)
def test_weights_are_the_generators_alone(name: str) -> None:
    initializer = getattr(initializers, name)()
    plain = drawn(initializer, nn.Conv2d(3, 4, 3))
    torch.manual_seed(99)
    other = drawn(initializer, nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last))
    assert torch.equal(plain.weight, other.weight)
    if name != "constant":
        assert not torch.equal(plain.weight, drawn(initializer, nn.Conv2d(3, 4, 3), seed=1).weight)


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="layers must be one of linear, conv, all, not dense"):
        drawn(initializers.default(), nn.Linear(2, 2), layers="dense")


def test_negative_std_is_refused() -> None:
    with pytest.raises(ValueError, match="std must be 0 or more, not -1"):
        initializers.normal(std=-1)
