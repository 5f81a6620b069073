"""`dltrain inspect`: parameters, gradients and activations of a run or of what a run would begin with."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import LITTLE, RUN_FOLDER, train
from torch import nn
from torch.nn.functional import cross_entropy

import dltrain
from dltrain import models
from dltrain.cli import main
from dltrain.models.batch_norm import ScratchBatchNorm
from dltrain.models.inspection import inspect, limits, warnings

LENET = ("model=lenet", "data.image_size=28")
DEEP = ("model=mlp", "model.hidden_sizes=[50,50,50,50,50]")


def looked_into(model, *shape, scale=1.0):
    torch.manual_seed(0)
    inputs, labels = scale * torch.randn(32, *shape), torch.randint(0, 2, (32,))
    return inspect(model, inputs, lambda outputs: cross_entropy(outputs, labels))


def told(capsys, *words, expected=0):
    capsys.readouterr()
    assert main(["inspect", *words]) == expected
    return capsys.readouterr()


def warned(output):
    return [line.removeprefix("warning: ") for line in output.splitlines() if line.startswith("warning")]


def test_gradients_and_activations_are_those_of_a_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    found = looked_into(model, 6)
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 6), torch.randint(0, 2, (32,))
    hidden = model[:2](inputs)
    loss = cross_entropy(model[2](hidden), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert found.loss == pytest.approx(loss.item())
    for row, (name, parameter), gradient in zip(found.parameters, model.named_parameters(), gradients, strict=True):
        assert (row.name, row.shape) == (name, tuple(parameter.shape))
        assert row.gradient == pytest.approx(gradient.norm().item())
        assert (row.mean, row.deviation) == pytest.approx((parameter.mean().item(), parameter.std(correction=0).item()))
    relu = found.activations[1]
    assert (relu.name, relu.kind, relu.shape, relu.units) == ("1", "ReLU", (8,), 8)
    assert (relu.mean, relu.deviation) == pytest.approx((hidden.mean().item(), hidden.std(correction=0).item()))
    assert relu.zeros == pytest.approx((hidden == 0).float().mean().item())
    assert sum(relu.counts) == pytest.approx(1 - relu.zeros)
    assert [row.depth for row in found.parameters] == [0, None, 1, None]
    last = math.hypot(gradients[2].norm(), gradients[3].norm())
    assert limits(found) == pytest.approx((1e-3 * last, 100 * last))
    assert all(not module._forward_hooks for module in model.modules()), "nothing stays behind"


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(8), ScratchBatchNorm(8)], ids=["torch", "scratch"])
def test_a_bias_before_a_batch_norm_is_not_reported(norm):
    model = nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 2))
    found = looked_into(model, 6)
    assert [row.note for row in found.parameters] == ["", "none: before a norm", "", "", "", ""]
    assert model[0].bias.grad.norm() < 1e-6, "by nature, but for rounding"
    assert warnings(found) == []


def test_what_does_not_learn_is_reported():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -100.0)
    (nothing, dead) = warnings(looked_into(model, 6))
    assert nothing == "no gradient: 0.weight, 0.bias, 2.weight"
    assert dead == "dead units, 5% of a layer or more: 1 8 of 8"
    frozen = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    frozen[0].weight.requires_grad_(False)
    found = looked_into(frozen, 6)
    assert [row.note for row in found.parameters] == ["frozen", "", "", ""]
    assert warnings(found) == []


def test_gradients_that_vanish_explode_or_are_not_finite_are_reported():
    torch.manual_seed(0)
    chain = [layer for _ in range(6) for layer in (nn.Linear(20, 20), nn.Sigmoid())]
    vanishing = warnings(looked_into(nn.Sequential(*chain, nn.Linear(20, 2)), 20))
    assert vanishing[0].startswith("gradients vanish, norms below 0.001 of the last layer's")
    assert " 0.weight" in vanishing[0]
    assert "12.weight" not in vanishing[0]
    exploding = nn.Sequential(nn.Linear(20, 20, bias=False), nn.Linear(20, 2))
    nn.init.normal_(exploding[1].weight, std=1e3)
    assert warnings(looked_into(exploding, 20))[0].startswith("gradients explode, norms above 100 times")
    found = looked_into(nn.Sequential(nn.Linear(20, 2)), 20, scale=math.inf)
    assert warnings(found)[0] == "a gradient that is not finite: 0.weight, 0.bias"


def test_saturated_units_are_dead_and_pixels_that_never_change_are_not():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 10), nn.Sigmoid(), nn.Linear(10, 2))
    nn.init.constant_(model[1].bias[:3], 100.0)
    found = inspect(model, torch.zeros(8, 1, 2, 2), lambda outputs: outputs.sum())
    assert [row.dead for row in found.activations] == [None, None, 10, None]
    found = looked_into(model, 1, 2, 2)
    assert [row.dead for row in found.activations] == [None, None, 3, None]


def test_shortcuts_keep_gradients_even_with_depth():
    """Without them a norm at every layer makes gradients grow towards the first, and no norm makes them vanish."""

    def spread(**keywords):
        torch.manual_seed(0)
        facts = {"in_channels": 1, "image_size": 32, "num_classes": 2}
        found = looked_into(models.resnet34(**facts, **keywords), 1, 32, 32)
        norms = [row.gradient for row in found.parameters if row.depth is not None]
        return max(norms) / min(norms), " ".join(warnings(found))

    assert spread()[0] < 20
    ratio, words = spread(shortcut=False)
    assert ratio > 50
    ratio, words = spread(shortcut=False, norm="none")
    assert ratio > 1e10
    assert "gradients vanish" in words


def test_overrides_are_looked_into_and_nothing_is_trained(capsys):
    output = told(capsys, *LITTLE, *LENET, "model.norm=none", "init=normal").out
    assert "0  conv1.0.weight     6x1x5x5" in output
    assert any(line.split()[:2] == ["linear2.2", "Sigmoid"] for line in output.splitlines())
    assert warned(output)[0].startswith("gradients vanish")
    assert "conv1.0.weight" in warned(output)[0]
    assert output.endswith("picture  inspect.png\n")
    assert [path.name for path in Path.cwd().iterdir() if path.name != "cache"] == ["inspect.png"]
    assert "no warnings" in told(capsys, *LITTLE, *LENET, "init=normal", "--folder", "pictures/lenet").out
    assert Path("pictures/lenet/inspect.png").stat().st_size > 10_000


def test_the_inits_shape_the_activations_as_the_notes_say(capsys):
    def deviations(*words):
        lines = told(capsys, *LITTLE, *DEEP, *words).out.splitlines()
        kind = "Tanh" if "model.activation=tanh" in words else "ReLU"
        return [float(line.split()[4]) for line in lines if line.split()[1:2] == [kind]]

    small = deviations("model.activation=tanh", "init=normal")
    assert all(after < 0.2 * before for before, after in pairwise(small)), "N(0, 0.01^2) loses it"
    (vanishing,) = warned(told(capsys, *LITTLE, *DEEP, "model.activation=tanh", "init=normal").out)
    assert "output.weight" in vanishing, "small activations make even the last weight's gradient small"
    xavier = deviations("model.activation=tanh", "init=xavier_fan_in")
    assert min(xavier) > 0.2
    he, half = deviations("init=he_normal"), deviations("init=xavier_fan_in")
    assert 0.4 < he[-1] / he[0] < 2.5
    assert half[-1] < 0.4 * half[0], "relu halves the variance, which Xavier's does not make up for"


def test_a_run_is_looked_into_with_its_trained_weights(capsys):
    folder = train(
        *LENET, "trainer.epochs=1", "trainer.limit_train_batches=3", "data.batch_size=32", "init.freeze=[conv1]"
    )
    output = told(capsys, "run").out
    weight = dltrain.load(folder).model.conv2[0].weight
    row = next(line.split() for line in output.splitlines() if "conv2.0.weight" in line)
    assert float(row[4]) == pytest.approx(weight.std(correction=0).item(), rel=0.01)
    assert any(line.endswith("frozen") for line in output.splitlines())
    assert {path.name for path in folder.iterdir()} == RUN_FOLDER | {"inspect.png"}
    shown = told(capsys, str(folder), "--parameter", "conv2.0.weight").out
    assert shown.startswith("parameter conv2.0.weight, 16x6x5x5, mean ")
    assert told(capsys, "run", "--parameter=4").out == shown
    assert told(capsys, "run", "--parameter", "conv1.1.running_mean").out.startswith("buffer conv1.1.running_mean, 6,")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere"], 78, "no run 'nowhere'"),
        (["one", "two"], 2, "takes one run"),
        (["one", "model=mlp"], 2, "takes one run"),
        (["model=lenet_"], 78, "unknown model"),
        ([*LITTLE, *LENET, "--parameter", "conv1.0.wieght"], 78, "try conv1.0.weight, "),
        ([*LITTLE, *LENET, "--parameter", "18"], 78, "or a number from 0 to 17"),
    ],
)
def test_what_cannot_be_looked_into_is_told_in_one_line(words, code, message, capsys):
    assert message in told(capsys, *words, expected=code).err
    assert not Path("inspect.png").exists()


def test_a_picture_that_cannot_be_written_is_told(capsys):
    Path("taken").write_text("a file")
    assert "cannot write taken" in told(capsys, *LITTLE, *LENET, "--folder", "taken", expected=74).err
