"""Weights of another run or of a file to begin with, and parameters that stay as they are."""

import contextlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import rows, summary, train
from safetensors.torch import save_file

import dltrain
from dltrain import models
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose

SHORT = ("trainer.epochs=1", "trainer.limit_train_batches=3", "data.batch_size=32", "optim.lr=0.01")
LENET = ("model=lenet", "data.image_size=28", *SHORT)
HIDDEN = ("conv1.0.weight", "conv2.0.weight", "linear1.0.weight", "linear2.0.weight")


def weights(folder):
    return dltrain.load(folder).model.state_dict()


def log(folder):
    return " ".join((folder / "train.log").read_text().split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, trained once for all."""
    with contextlib.chdir(tmp_path_factory.mktemp("first")):
        return train(*LENET, name="first")


@pytest.fixture
def first(trained):
    """A copy of it, by the name of first."""
    return shutil.copytree(trained, Path("outputs/runs/first"))


def begun(*words):
    data = ("data=synthetic", "data.num_train=700", "data.num_test=64", "data.val_size=64", "device=cpu")
    return build(compose([*data, *LENET, *words]).config)


def test_a_run_begins_with_the_weights_of_another(first):
    given, model = weights(first), begun("init=run", "init.path=first").model
    assert all(torch.equal(value, given[name]) for name, value in model.state_dict().items())
    notes = begun("init=run", f"init.path={first}", "seed=5").notes
    assert notes[0] == f"init.path={first.resolve()}: {len(given)} of {len(given)} tensors taken"


def test_other_classes_get_a_layer_of_their_own_and_frozen_layers_stay(first):
    words = ("init=run", "init.path=first", "init.freeze=[conv1,linear?.0,'*2.1.bias']", "data.classes=[0,6]")
    folder = train(*LENET, *words, "optim.weight_decay=0.1", "loss.l2=0.1", "trainer.ema=0.5", name="second")
    before, after = weights(first), weights(folder)
    assert "misfitting: output.weight (10x84 there, 2x84 here), output.bias (10 there, 2 here)" in log(folder)
    frozen = [name for name, each in dltrain.load(folder).model.named_parameters() if not each.requires_grad]
    assert frozen == [
        "conv1.0.weight", "conv1.0.bias", "conv1.1.weight", "conv1.1.bias", "conv2.1.bias",
        "linear1.0.weight", "linear1.0.bias", "linear2.0.weight", "linear2.0.bias", "linear2.1.bias",
    ]  # fmt: skip
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["conv2.0.weight"], after["conv2.0.weight"])
    assert after["output.weight"].shape == (2, 84)


def test_the_optimizer_and_the_penalty_know_only_what_is_trained(first):
    made = begun("init=run", "init.path=first", "init.freeze=[conv1,conv2]", "loss.l2=1")
    optimizer = made.engine.optimizer
    trained = {name for group in optimizer.param_groups for name in group["param_names"]}
    assert trained == {name for name, _ in made.model.named_parameters() if not name.startswith("conv")}
    matrices = [each for each in made.model.parameters() if each.ndim > 1 and each.requires_grad]
    assert len(matrices) == 3
    expected = sum(each.square().sum() for each in matrices) / 2
    torch.testing.assert_close(made.engine.penalty(), expected)


def test_a_run_goes_on_and_loads_where_its_beginning_is_gone(first):
    words = (*LENET, "init=run", "init.path=first", "init.freeze=[conv1]")
    whole = train(*words, "trainer.epochs=2", name="whole")
    part = train(*words, name="part")
    shutil.rmtree(first)
    assert main(["resume", "part", "trainer.epochs=2"]) == 0
    assert summary(part)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert [row["loss"] for row in rows(part, "val")] == [row["loss"] for row in rows(whole, "val")]
    assert not dltrain.load(part).model.conv1[0].weight.requires_grad
    train(*words, name="third", expected=78)


def test_what_lacks_and_what_is_extra_is_named(first):
    made = begun("init=run", "init.path=first", "model.norm=none")
    note = made.notes[0]
    assert note.startswith("init.path=first: 10 of 10 tensors taken; extra: conv1.1.bias, conv1.1.num_batches_tracked")
    assert note.endswith(" and 12 more")
    plain = train(*LENET, "model.norm=none", name="plain")
    note = begun("init=run", f"init.path={plain}").notes[0]
    assert note.startswith(f"init.path={plain}: 10 of 30 tensors taken; missing: conv1.1.weight, conv1.1.bias")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["init=run"], 78, "init=run: init.path must name the run"),
        (["init=run", "init.path=frist"], 78, "no run 'frist'"),
        (["init=run", "init.path=first", "model=mlp"], 78, "init.path=first: nothing fits: the model has hidden.0."),
        (["init=run", "init.path=first", "model.weights=x.pt"], 78, "both say which weights to begin with"),
        (["init.freeze=[conf1]"], 78, "init.freeze: conf1: no layer or parameter is called so; the nearest are conv1"),
        (["init.freeze=['*']"], 78, "init.freeze: nothing is left to train"),
        (["init.freeze=conv1"], 78, "init.freeze=conv1: must be a list"),
        (["model.weights=none.pt"], 66, "none.pt: there is no such file"),
        (["model.weights=damaged.pt"], 66, "damaged.pt holds no weights that can be read"),
        (["model.weights=damaged.safetensors"], 66, "damaged.safetensors holds no weights that can be read"),
        (["model.weights=hostile.pt"], 66, "hostile.pt holds no weights that can be read: neither safetensors"),
        (["model.weights=empty.pt"], 66, "empty.pt holds no tensors by name"),
    ],
)
def test_refusals_are_one_line(words, code, message, first, capsys):
    for name in ("damaged.pt", "damaged.safetensors"):
        Path(name).write_bytes(b"no weights")
    torch.save({"run": torch.nn.Linear}, "hostile.pt")
    torch.save({"epoch": 3}, "empty.pt")
    train(*LENET, *words, name="refused", expected=code)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("outputs/runs/refused").exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "wrapped.pt"])
def test_weights_of_a_file_for_torchvisions_networks(suffix):
    torch.manual_seed(1)
    facts = {"in_channels": 1, "image_size": 32}
    state = models.torchvision(arch="squeezenet1_1", num_classes=10, **facts).state_dict()
    path = f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(
        {"state_dict": state, "epoch": 3} if suffix == "wrapped.pt" else state, path
    )
    words = ("model=torchvision", "model.arch=squeezenet1_1", f"model.weights={path}", "init.freeze=[features]")
    folder = train(*words, *SHORT, "data.classes=[1,2,3]", "optim=sgd")
    Path(path).unlink()
    after = weights(folder)
    assert all(torch.equal(after[name], state[name]) for name in state if name.startswith("features"))
    assert "misfitting: classifier.1.weight (10x512x1x1 there, 3x512x1x1 here)" in log(folder)
    assert main(["resume", folder.name, "trainer.epochs=2"]) == 0


def test_the_same_key_serves_a_network_of_ours():
    torch.save(models.lenet(in_channels=1, image_size=28, num_classes=10).state_dict(), "own.pt")
    model = begun("model.weights=own.pt", "init=constant").model
    assert model.conv1[0].weight.std() > 0


def test_a_replay_names_other_weights_to_begin_with(first, capsys):
    save_file(weights(first), "given.safetensors")
    folder = train(*LENET, f"model.weights={Path('given.safetensors').resolve()}", name="second")
    assert main(["resume", "second", "trainer.epochs=2"]) == 0, "and the second part keeps what the first was given"
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["initial_weights_sha256"] == summary(first)["weights_sha256"]
    assert "earlier" not in environment
    save_file({name: value + (value.ndim > 1) for name, value in weights(first).items()}, "given.safetensors")
    capsys.readouterr()
    assert main(["replay", "second"]) == 70
    said = capsys.readouterr().out
    assert "differs: the weights that it began with: " in said
    assert said.splitlines()[-1].startswith("different: because of the weights that it began with: ")
