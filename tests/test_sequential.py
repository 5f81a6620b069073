"""`model=sequential`, the layers of one's own, and the network of constant weights and a loop."""

import math
from pathlib import Path

import pytest
import torch
from helpers import run, summary, train
from torch import nn

import dltrain
from dltrain import models
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.models.batch_norm import ScratchBatchNorm
from dltrain.models.own_layers import CenteredLayer, MyLinear
from dltrain.models.summary import layers, parameter_count

IMAGES = (3, 28, 28)
SMALL_LENET = compose(["experiment=sequential_lenet"]).config.model.layers


def made(*items, shape=IMAGES, num_outputs=2):
    return models.sequential(input_shape=shape, num_outputs=num_outputs, layers=list(items))


def shapes(model, shape=IMAGES):
    return [row.output_shape for row in layers(model, input_shape=shape)]


@pytest.mark.parametrize(("side", "count"), [(28, 8_860), (96, 127_180)])
def test_the_small_lenet_of_the_preset_is_the_networks_own(side, count):
    model = models.sequential(input_shape=[1, side, side], num_outputs=2, layers=SMALL_LENET)
    twin = models.small_lenet(in_channels=1, image_size=side, num_classes=2)
    assert parameter_count(model) == parameter_count(twin) == count
    twin.load_state_dict(dict(zip(twin.state_dict(), model.state_dict().values(), strict=True)))
    images = torch.randn(4, 1, side, side)
    assert torch.equal(model(images), twin(images))


def test_linear_and_mlp_of_the_notes_train_on_vectors():
    words = ["data=linear_synthetic", "model=sequential", "device=cpu", "trainer.epochs=1"]
    small = run(*words, "data.num_features=4", "model.layers=[{linear: 8}, relu, {linear: outputs}]", name="small")
    wide = run(*words, "data.num_features=20", "data.num_outputs=10", name="wide")
    assert [summary(folder)["parameters"] for folder in (small, wide)] == [49, 7_946]
    model = dltrain.load(small).model
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]


def test_sizes_follow_from_the_layers_before():
    model = made(
        {"conv": {"channels": 8, "kernel": [3, 5], "stride": [1, 2], "padding": [1, 0]}},  # 8x28x12
        [{"conv": {"channels": 16, "groups": 4, "dilation": 2, "padding_mode": "circular", "padding": 2}}, "relu"],
        {"max_pool": {"kernel": 3, "stride": 2, "padding": 1}},  # 16x14x6
        {"residual": {"channels": 32, "depth": 2, "stride": 2}},  # 32x7x3
        {"shortcut": [{"norm": "instance"}, {"conv": {"channels": 32, "padding": 1}}]},
        {"dense_block": {"depth": 2, "growth": 4}},  # 40x7x3
        "transition",  # 20x3x1
        "global_avg_pool",
        "flatten",
        {"my_linear": {"units": 6}},
        "centered",
        {"norm": {"kind": "scratch_notes"}},
        {"dropout": 0.25},
        {"linear": {"features": "outputs", "bias": False}},
    )
    outputs = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({int(name): output.shape[1:]}))
    assert model(torch.randn(2, *IMAGES)).shape == (2, 2)
    expected = {0: (8, 28, 12), 1: (16, 28, 12), 2: (16, 14, 6), 3: (32, 7, 3), 5: (40, 7, 3), 6: (20, 3, 1), 8: (20,)}
    assert {index: tuple(outputs[index]) for index in expected} == expected
    assert model[13].in_features == 6
    assert model[13].bias is None
    assert isinstance(model[11], ScratchBatchNorm)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("norm", ["batch", "sync_batch", "scratch", "scratch_notes", "layer", "group", "instance"])
def test_a_norm_is_that_of_its_inputs(norm):
    model = made({"conv": 8}, {"norm": norm}, "flatten", {"linear": 12}, {"norm": norm.replace("instance", "layer")})
    assert model(torch.randn(2, *IMAGES)).shape == (2, 12)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["flaten"], r"layers\[0\]: unknown layer 'flaten': did you mean flatten\?"),
        (["relu", {"conv": {"chanels": 3}}], r"layers\[1\] \(conv\): unknown key 'chanels': did you mean channels\?"),
        (["relu", {"linear": 10}], r"layers\[1\] \(linear\) gets 3x28x28: it takes vectors, .* 2352 features"),
        (["flatten", {"conv": 3}], r"layers\[1\] \(conv\) gets 2352: it takes images, channels x height x width"),
        ([{"conv": {"channels": 3, "kernel": 29}}], r"gets 3x28x28: a window of 29 does not fit a side of 28"),
        ([["relu", {"max_pool": 30}]], r"layers\[0\]\[1\] \(max_pool\) gets 3x28x28: a window of 30"),
        ([{"conv": {"channels": 4, "groups": 3}}], "groups=3 must divide its 3 channels and the 4 it makes"),
        ([{"shortcut": [{"conv": 3}]}], r"\(shortcut\) gets 3x28x28: its layers make 3x26x26, and must keep"),
        (["flatten", {"norm": "instance"}], r"layers\[1\] \(norm\) gets 2352: norm of vectors must be one of"),
        ([{"linear": None}], r"layers\[0\] \(linear\) needs features, as in {linear: 10}"),
        ([{"conv": {"channels": 2.5}}], "channels must be a whole number of 1 or more, not 2.5"),
        ([{"conv": {"channels": [2, 3]}}], r"channels must be one value, not \[2, 3\]"),
        ([{"conv": {"channels": 2, "kernel": "ten"}}], "kernel must be a whole number or a pair .*, not 'ten'"),
        ([{"conv": {"channels": 2, "bias": 1}}], "bias must be true or false, not 1"),
        ([{"dropout": 1.5}], "ratio must be a number from 0 to below 1, not 1.5"),
        ([{"residual": {"channels": 6, "block": "bottleneck"}}], "a multiple of 4 for block=bottleneck, not 6"),
        ([{"relu": 3}], r"layers\[0\]: relu takes no value, not 3"),
        ([7], r"layers\[0\]: a layer is a name, or a name with its keys"),
        ([], "layers must be a list of layers"),
    ],
)
def test_a_refusal_names_the_layer_and_both_shapes(items, message):
    with pytest.raises(ValueError, match=message):
        made(*items)


def test_the_command_refuses_in_one_line(capsys):
    words = ["data=linear_synthetic", "model=sequential", "device=cpu"]
    assert main([*words, "model.layers=[{linear: 8}, rel]"]) == 78
    assert (
        capsys.readouterr().err
        == "dltrain: model=sequential: layers[1]: unknown layer 'rel': did you mean relu or elu?\n"
    )
    assert main([*words, "model.layers=relu"]) == 78
    assert main([*words, "model.layers=[{linear: 8}]"]) == 78
    assert "makes (2, 8) of 2 inputs, and must make (2, 1)" in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_the_layers_are_initialized_after_their_sizes_are_known():
    words = ["data=linear_synthetic", "model=sequential", "model.layers=[{linear: 8}, relu, {linear: outputs}]"]
    model = build(compose([*words, "device=cpu", "init=constant", "init.value=0.5"]).config).model
    assert torch.equal(model[0].weight, torch.full((8, 5), 0.5))
    assert not model[2].bias.any()


def test_the_centered_layer_takes_away_the_mean_of_the_whole_tensor():
    assert CenteredLayer()(torch.tensor([1.0, 2, 3, 4, 5])).tolist() == [-2, -1, 0, 1, 2]
    assert made("flatten", {"linear": 128}, "centered")(torch.randn(4, *IMAGES)).mean().abs() < 1e-6


def test_my_linear_is_the_notes_and_learns():
    torch.manual_seed(0)
    layer = MyLinear(5, 3)
    inputs = torch.randn(2, 5)
    assert torch.equal(layer(inputs), torch.clamp(inputs @ layer.weight + layer.bias, min=0))
    folder = train("model=sequential", "model.layers=[flatten, {my_linear: 8}, {linear: outputs}]", "trainer.epochs=1")
    start = made("flatten", {"my_linear": 8}, shape=(1, 32, 32))
    assert summary(folder)["train"]["loss"] > 0
    weight = dltrain.load(folder).model[1].weight
    assert weight.shape == start[1].weight.shape == (1024, 8)
    assert 0.9 < start[1].weight.std() < 1.1, "standard normal"


def by_hand(model, features):
    """The notes' forward pass of one batch."""
    linear, constant = model.linear, model.constant
    hidden = linear(features)
    hidden = torch.clamp(hidden @ constant + 1, min=0)
    hidden = linear(hidden)
    while hidden.abs().sum() > 1:
        hidden = hidden / 2
    return hidden.sum()


def test_the_network_of_constant_weights_is_the_notes():
    torch.manual_seed(0)
    model = models.fixed_hidden_mlp(num_features=20, num_outputs=1, per_example=False)
    assert parameter_count(model) == 420
    assert [name for name, _ in model.named_buffers()] == ["constant"]
    assert 0 <= model.constant.min() < model.constant.max() < 1
    features = torch.rand(2, 20)
    outputs = model(features)
    assert outputs.shape == (2, 1)
    assert torch.equal(outputs, by_hand(model, features).expand(2, 1))
    assert outputs.abs().max() <= 1
    outputs[0].backward()
    assert model.linear.weight.grad.any()
    assert model.constant.grad is None


def test_each_row_is_halved_by_its_own_sum():
    torch.manual_seed(0)
    model = models.fixed_hidden_mlp(num_features=20, num_outputs=1)
    features = torch.randn(6, 20) * torch.logspace(-3, 3, 6)[:, None]
    expected = torch.stack([by_hand(model, row[None]) for row in features])
    torch.testing.assert_close(model(features), expected[:, None])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("per_example", [True, False])
def test_what_is_not_finite_ends_the_loop(bad, per_example):
    model = models.fixed_hidden_mlp(num_features=20, num_outputs=1, per_example=per_example)
    with pytest.raises(ValueError, match="a hidden value is not finite"):
        model(torch.full((2, 20), bad))


def test_it_trains_on_vectors_of_twenty_features(capsys):
    words = ["data=linear_synthetic", "data.num_features=20", "model=fixed_hidden_mlp", "device=cpu"]
    folder = run(*words, "optim.lr=0.01", "trainer.epochs=3", "trainer.eval_at_start=true")
    losses = [row["loss"] for row in dltrain.load(folder).rows if row["split"] == "val"]
    assert summary(folder)["parameters"] == 420
    assert losses[-1] < 0.95 * losses[0]
    assert main([*words, "data.num_outputs=2"]) == 78
    assert main([*words, "optim=sgd", "optim.lr=1e30"]) == 65
    assert "fixed_hidden_mlp: a hidden value is not finite" in capsys.readouterr().err
