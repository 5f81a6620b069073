"""The table of layers: order, shapes, parameters, receptive fields; and the arithmetic of training."""

import subprocess
import sys
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dltrain import models
from dltrain.models.summary import layers, parameter_count, train_flops


def create(name: str) -> nn.Module:
    facts = {"in_channels": 1, "image_size": 96, "num_classes": 10, "input_shape": (1, 96, 96), "num_outputs": 10}
    network = getattr(models, name)
    model: nn.Module = network(**{key: facts[key] for key in signature(network).parameters if key in facts})
    return model


def fields(model: nn.Module, *input_shape: int) -> list[int | None]:
    return [row.receptive_field for row in layers(model, input_shape=input_shape)]


@pytest.mark.parametrize(
    ("name", "last", "field"), [("lenet", "pool2", 16), ("resnet18", "stage4", 435), ("densenet", "block4", 519)]
)
def test_receptive_field_of_the_last_images(name: str, last: str, field: int) -> None:
    rows = layers(create(name), input_shape=(1, 96, 96))
    assert [row.receptive_field for row in rows if row.name.startswith(last)][-1] == field
    assert rows[-1].receptive_field is None


def test_rows_of_lenet() -> None:
    rows = layers(create("lenet"), input_shape=(1, 96, 96))
    assert rows[0] == ("conv1.0", "Conv2d", (6, 92, 92), 156, 5)
    assert rows[3] == ("pool1", "AvgPool2d", (6, 46, 46), 0, 6)
    assert rows[-1] == ("output", "Linear", (10,), 850, None)
    assert [row.name for row in rows][7:10] == ["pool2", "flatten", "linear1.0"]


@pytest.mark.parametrize("name", ["lenet", "mlp", "resnet18", "resnet50", "densenet"])
def test_rows_add_up_to_all_parameters(name: str) -> None:
    with torch.device("meta"):
        model = create(name)
    rows = layers(model, input_shape=(1, 96, 96))
    assert sum(row.parameters for row in rows) == parameter_count(model)
    assert len({row.name for row in rows}) == len(rows)


def test_layers_that_do_nothing_are_left_out() -> None:
    model = models.lenet(in_channels=1, image_size=28, num_classes=10, norm="none")
    assert "Identity" not in {row.kind for row in layers(model, input_shape=(1, 28, 28))}


def test_the_model_is_not_touched() -> None:
    model = create("lenet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    layers(model, input_shape=(1, 96, 96))
    assert model.training
    assert all(not module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_stride_dilation_and_padding() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=2),  # 1 + 2 = 3, jump 2
        nn.ZeroPad2d(4),
        nn.Conv2d(1, 1, 3, dilation=2),  # 3 + 2 * 2 * 2 = 11
        nn.MaxPool2d(3, stride=2, dilation=2),  # 11 + 2 * 2 * 2 = 19, jump 4
        nn.AvgPool2d(2),  # 19 + 4 = 23, jump 8
        nn.Conv2d(1, 1, (3, 1), padding="same"),  # 23 + 2 * 8 = 39
    )
    assert fields(model, 1, 96, 96) == [3, 3, 11, 19, 23, 39]


class Branches(nn.Module):
    """Two branches that meet, then squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(1, 1, 1)
        self.wide = nn.Conv2d(1, 1, 7, padding=3)
        self.after = nn.ReLU()
        self.excitation = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1))
        self.last = nn.ReLU()

    def forward(self, images: Tensor) -> Any:
        images = self.after(torch.cat([self.wide(images), self.narrow(images)], dim=1))
        return self.last(images * self.excitation(images))


def test_the_largest_field_counts_where_branches_meet() -> None:
    assert fields(Branches(), 1, 9, 9) == [7, 1, 7, None, None, None]


def test_shared_weights_and_tuples() -> None:
    shared = nn.Linear(4, 4)
    rows = layers(nn.Sequential(shared, nn.ReLU(), shared, nn.LSTM(4, 3)), input_shape=(4,))
    assert [row.parameters for row in rows] == [20, 0, 0, 4 * (12 + 9 + 6)]
    assert rows[-1].output_shape == (3,)
    assert rows[0].receptive_field is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mlp", 9_452_544), ("lenet", 35_625_840), ("resnet18", 1_897_494_528), ("densenet", 760_012_320)],
)
def test_the_arithmetic_of_training_on_an_image(name: str, expected: int) -> None:
    assert train_flops(create(name), input_shape=(1, 96, 96)) == expected


class Attention(nn.Module):
    """Attention over a sequence of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(6, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, vectors: Tensor) -> Any:
        return self.encoder(self.embedding(vectors))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3)), (3, 9, 9)),
        (nn.Sequential(nn.Conv2d(3, 8, 3).requires_grad_(False), nn.Conv2d(8, 4, (1, 3))), (3, 9, 9)),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 8, bias=False), nn.Tanh(), nn.Linear(8, 2)), (4, 4)),
        (Attention(), (5, 6)),
    ],
)
def test_the_arithmetic_is_what_torch_counts_forward_and_backward(model: nn.Module, shape: tuple[int, ...]) -> None:
    from torch.utils.flop_counter import FlopCounterMode  # takes seconds to import

    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, *shape)).sum().backward()
    assert train_flops(model, input_shape=shape) == counter.get_total_flops() / 2


def test_the_arithmetic_of_a_convolution_to_more_pixels_and_of_groups() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 8, 2, stride=2), nn.Conv2d(8, 8, 3, padding=1, groups=4))
    up, grouped = 2 * 3 * 5 * 5 * 8 * 2 * 2, 2 * 8 * 10 * 10 * 2 * 3 * 3
    assert train_flops(model, input_shape=(3, 5, 5)) == 2 * up + 3 * grouped


def test_the_first_call_imports_nothing_slow() -> None:
    """A forward pass on the meta device would import torch's decompositions: more than a second."""
    command = (
        "import sys, torch; from dltrain import models; from dltrain.models.summary import layers\n"
        "model = models.lenet(in_channels=1, image_size=28, num_classes=10)\n"
        "layers(model, input_shape=(1, 28, 28))\n"
        "sys.exit(any(name in sys.modules for name in ('torch._dynamo', 'sympy', 'torchvision')))"
    )
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
