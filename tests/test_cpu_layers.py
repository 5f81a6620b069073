"""What a CPU computes in another way than torch by itself: the same numbers, in fewer milliseconds."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.engine import cpu

SMALL = ("data=synthetic", "data.num_train=64", "data.val_size=16", "data.num_test=16", "data.batch_size=16")


def passed(layer: nn.Module, images: Tensor, *, bf16: bool) -> list[Tensor]:
    """A layer's outputs, and the gradients of their squares with respect to images and weights."""
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        outputs = layer(images)
    outputs.float().square().sum().backward()
    return [outputs.detach(), images.grad, *(weight.grad for weight in layer.parameters())]


def both(layer: nn.Module, images: Tensor, *, bf16: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What torch's layer gives, what it gives once it suits a CPU, and the truth in float64."""
    torch.manual_seed(0)
    exact = passed(copy.deepcopy(layer).double(), images.double(), bf16=False)
    plain = passed(layer, images, bf16=bf16)
    layer.zero_grad()
    cpu.suit(layer)
    return plain, passed(layer, images, bf16=bf16), exact


def error(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [((a.double() - b).norm() / b.norm()).item() for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("how", [{}, {"padding": 2}, {"stride": 2}, {"in_channels": 3}])
def test_a_convolution_of_few_channels_is_closer_to_float64_than_torchs(how: dict[str, Any]) -> None:
    layer = nn.Conv2d(**{"in_channels": 1, "out_channels": 6, "kernel_size": 5, **how})
    images = torch.randn(8, layer.in_channels, 20, 20)
    plain, suited, exact = both(layer, images, bf16=True)
    assert [each.dtype for each in suited] == [each.dtype for each in plain]
    for ours, torchs in zip(error(suited, exact), error(plain, exact), strict=True):
        assert ours <= torchs * 1.1 < 0.02
    assert error(suited, exact)[-1] < error(plain, exact)[-1], "it is in float32"


@pytest.mark.parametrize("shape", [(4, 6, 12, 8), (3, 2, 2), (1, 1, 96, 96)])
def test_means_of_four_pixels_are_torchs_own(shape: tuple[int, ...]) -> None:
    plain, suited, _ = both(nn.AvgPool2d(2), torch.randn(shape).bfloat16().float(), bf16=True)
    torch.testing.assert_close(suited, plain, rtol=0, atol=0)
    images = torch.randn(shape, dtype=torch.bfloat16)
    assert cpu.halve(nn.AvgPool2d(2), images).equal(nn.functional.avg_pool2d(images, 2))


def test_what_the_other_way_does_not_do_is_torchs() -> None:
    images = torch.randn(2, 6, 9, 10, dtype=torch.bfloat16)
    channels_last = torch.randn(2, 6, 8, 10, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    for given in (images, channels_last, images.float()):
        pool = nn.AvgPool2d(2)
        assert cpu.halve(pool, given).equal(pool(given))
    kept = [nn.AvgPool2d(3), nn.AvgPool2d(2, padding=1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2, divisor_override=3)]
    kept += [nn.Conv2d(1, 16, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(1, 6, 3, bias=False)]
    for layer in kept:
        cpu.suit(layer)
        assert "forward" not in vars(layer)
    convolution = nn.Conv2d(1, 6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert cpu.convolve(convolution, images[:, :1]).dtype == torch.bfloat16
    assert cpu.convolve(convolution, images[:, :1].float()).equal(convolution(images[:, :1].float()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_computes_with_its_own_weights(copied: Callable[[nn.Module], Any]) -> None:
    """The averaged weights are a copy of the model, and people pickle one."""
    layer, images = nn.Conv2d(1, 6, 5), torch.randn(2, 1, 8, 8)
    cpu.suit(layer)
    other = copied(layer)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    assert other(images).abs().max() == 0
    assert layer(images).abs().max() > 0


@pytest.mark.parametrize(("words", "suited"), [(["bf16"], True), (["fp32"], False), (["bf16", "default"], False)])
def test_a_run_in_bfloat16_that_is_not_compiled_suits_a_cpu_that_is_fast_at_it(
    words: list[str], suited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ("device.precision", "device.compile")
    overrides = [f"{key}={word}" for key, word in zip(keys, words, strict=False)]
    config = compose(["model=lenet", "device=cpu", *SMALL, *overrides]).config
    for fast in ("bf16", "fp32"):
        monkeypatch.setattr("dltrain.build.fastest", lambda device, fast=fast: fast)
        changed = [type(module) for module in build(config).model.modules() if "forward" in vars(module)]
        assert changed == ([nn.Conv2d, nn.AvgPool2d, nn.AvgPool2d] if suited and fast == "bf16" else [])
