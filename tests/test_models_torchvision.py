"""torchvision's classifiers through `model=torchvision`, and ours against them where the definitions agree."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain import models
from dltrain.models.summary import parameter_count

LIKE_TORCHVISION = {"image_size": 96, "projection_norm": True, "conv_bias": False}


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    values, places = source.state_dict().values(), target.state_dict()
    assert [value.shape for value in values] == [place.shape for place in places.values()]
    target.load_state_dict(dict(zip(places, values, strict=True)))


def outputs_of(model: nn.Module, stages: list[str], images: Tensor) -> list[Tensor]:
    outputs: list[Tensor] = []
    for stage in stages:
        model.get_submodule(stage).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    with torch.no_grad():
        return [model.eval()(images), *outputs]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "densenet121"])
def test_ours_equal_torchvision_stage_by_stage(name: str) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    if name.startswith("resnet"):
        ours = getattr(models, name)(in_channels=3, num_classes=11, **LIKE_TORCHVISION)
        pairs = {f"stage{i}": f"layer{i}" for i in (1, 2, 3, 4)}
    else:
        ours = getattr(models, name)(in_channels=3, image_size=64, num_classes=11)
        pairs = {f"block{i}": f"features.denseblock{i}" for i in (1, 2, 3, 4)}
    theirs = get_model(name, weights=None, num_classes=11)
    assert parameter_count(ours) == parameter_count(theirs)

    randomize_norms(theirs)
    copy_in_order(theirs, ours)
    images = torch.randn(2, 3, 64, 64)
    our_outputs = outputs_of(ours, list(pairs), images)
    their_outputs = outputs_of(theirs, list(pairs.values()), images)
    assert len(our_outputs) == len(pairs) + 1
    for our_output, their_output in zip(our_outputs, their_outputs, strict=True):
        torch.testing.assert_close(our_output, their_output)


def randomize_norms(model: nn.Module) -> None:
    """Fresh norms are all alike in evaluation: a swapped pair would not show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert values is not None
                values.uniform_(0.5, 1.5)


@pytest.mark.parametrize("name", ["resnet101", "resnet152", "densenet169"])
def test_the_deeper_ones_have_torchvisions_tensors(name: str) -> None:
    from torchvision.models import get_model

    keywords: dict[str, Any] = LIKE_TORCHVISION if name.startswith("resnet") else {"image_size": 96}
    with torch.device("meta"):
        ours = getattr(models, name)(in_channels=3, num_classes=10, **keywords)
        theirs = get_model(name, weights=None, num_classes=10)
    our_shapes = [value.shape for value in ours.state_dict().values()]
    assert our_shapes == [value.shape for value in theirs.state_dict().values()]


@pytest.mark.parametrize("arch", ["resnet18", "googlenet", "vit_b_32", "mobilenet_v3_small", "regnet_x_400mf"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_an_architecture_takes_any_channels(arch: str, in_channels: int) -> None:
    with torch.device("meta"):
        model = models.torchvision(in_channels=in_channels, image_size=96, num_classes=7, arch=arch)
    assert all(parameter.is_meta for parameter in model.parameters())
    logits = model.train()(torch.empty(2, in_channels, 96, 96, device="meta"))
    assert logits.shape == (2, 7)


def test_the_weights_are_real_off_the_meta_device() -> None:
    model = models.torchvision(in_channels=1, image_size=28, num_classes=10)
    assert model.training
    assert model.get_parameter("conv1.weight").shape == (64, 1, 7, 7)
    assert all(parameter.std() > 0 for parameter in model.parameters() if parameter.dim() > 1)


@pytest.mark.parametrize(
    ("arch", "image_size", "message"),
    [
        ("resnet19", 96, "no classifier 'resnet19'; the nearest names are .*resnet18"),
        ("alexnet", 62, "alexnet cannot take images of 62 pixels a side, but can take 63"),
        ("vit_b_32", 100, "vit_b_32 cannot take images of 100 pixels a side, but can take 224"),
        ("maxvit_t", 96, "maxvit_t cannot take images of 96 pixels a side, but can take 224"),
    ],
)
def test_refusals_name_what_would_do(arch: str, image_size: int, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        models.torchvision(in_channels=1, image_size=image_size, num_classes=10, arch=arch)
