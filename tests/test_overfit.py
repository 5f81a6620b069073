"""`dltrain overfit`: who passes, what is switched off for it, and what it says of those who fail."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import LITTLE, networks
from mutants import mutated
from omegaconf import OmegaConf

from dltrain.cli import main
from dltrain.run.record import read_rows
from dltrain.verbs._overfit import attainable

FOLDER = Path("outputs/overfit/test")
PAGE = Path(__file__).parents[1] / "docs/first-checks.md"
QUICK = ("mlp", "lenet", "gru")
TEXT = ("data=markov_text", "device=cpu", "model=gru", "data.batch_size=8", "optim.lr=0.01")
NUMBERS = ("data=linear_synthetic", "model=linear", "optim.lr=0.1", "device=cpu")


def overfit(*words: str, expected: int = 0):
    """What the verb leaves."""
    assert main(["overfit", *words, "name=test", "--debug"]) == expected
    return json.loads((FOLDER / "overfit.json").read_text())


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in networks()]
)
def test_every_network_learns_a_batch_by_heart(model):
    result = overfit(*LITTLE, f"model={model}")
    assert result["passed"]
    assert result["evaluated"]["words"] == "16 of 16 right"
    rows = read_rows(FOLDER)
    assert [row["step"] for row in rows] == [*range(1, result["steps"] + 1)]
    assert {row["split"] for row in rows} == {"train"}


def test_text_and_numbers_are_known_by_their_own_measures():
    assert "that can be, of" in overfit(*TEXT)["evaluated"]["words"]
    (FOLDER).rename("text")
    assert "of the targets' variance explained" in overfit(*NUMBERS)["evaluated"]["words"]


def test_of_windows_that_begin_alike_one_answer_a_place_can_be_right():
    windows, following = torch.tensor([[1, 2], [1, 3], [4, 4]]), torch.tensor([[2, 5], [3, 6], [4, 7]])
    assert attainable((windows, following)) == 5  # after 1 come 2 and 3
    assert attainable((torch.rand(3, 4), torch.tensor([0, 1, 1]))) == 3


def test_what_makes_it_impossible_is_switched_off_and_said(capsys):
    regular = ("augment=mixup", "model.dropout=0.5", "loss.label_smoothing=0.2", "optim.weight_decay=0.1")
    overfit(*LITTLE, "model=mlp", *regular, "schedule=cosine", "trainer.ema=0.99", "loss.l2=0.5")
    said = "off for this check: augment=mixup, schedule=cosine, loss.label_smoothing=0.2, loss.l2=0.5, "
    printed = capsys.readouterr().out
    assert f"{said}optim.weight_decay=0.1, trainer.ema=0.99" in printed.replace("\n", "")
    assert "off for this check: dropout, 1 layers" in printed
    config = OmegaConf.load(FOLDER / "trial.yaml")
    assert (config.augment.name, config.optim.weight_decay, config.trainer.overfit_batches) == ("none", 0, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["optim=sgd", "optim.lr=1e-8"], "the loss did not move, 2."),
        (["optim=sgd", "optim.lr=30"], "the loss rose, 2."),
        (["optim=sgd", "optim.lr=1e30"], "the loss was not finite at step"),
        (["optim=sgd", "optim.lr=0.001"], "the loss fell, 2."),
        (["init=constant", "init.value=0"], "hidden.0.weight, hidden.0.bias, output.weight: no gradient arrives"),
    ],
)
def test_a_failure_comes_with_its_likely_reason(words, reason, capsys):
    result = overfit(*LITTLE, "model=mlp", *words, "--steps", "20", expected=70)
    assert not result["passed"]
    assert any(reason in finding for finding in result["findings"]), result["findings"]
    assert "failed: " in capsys.readouterr().out


def test_it_gives_up_where_the_loss_falls_no_further():
    result = overfit(*NUMBERS, "model=mlp", "model.hidden_sizes=[1]", "data.noise=3", expected=70)
    assert result["steps"] < 2000
    assert "and no further: is the model too small?" in result["findings"][0]


def test_running_statistics_that_do_not_follow_are_told_from_a_batch_that_is_not_known():
    with mutated("norm_momentum_zero"):
        result = overfit(*LITTLE, "model=mlp", "model.norm=batch", "--steps", "30", expected=70)
    assert any(finding.startswith("hidden.1.running_mean, ") for finding in result["findings"])


def test_layers_that_are_frozen_on_purpose_are_no_finding():
    assert overfit(*LITTLE, "model=mlp", "init.freeze=[hidden.0]")["findings"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [(["model=mlp,lenet"], "takes one setting"), (["--steps", "1"], "--steps 1: must be 5 or more")],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, message, capsys):
    assert main(["overfit", *words]) == 78
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("line", re.findall(r"^dltrain (?!-m)(.*?)(?:  #.*)?$", PAGE.read_text(), re.MULTILINE))
def test_the_commands_of_the_page_run(line):
    assert main([*line.split(), *LITTLE]) == 0
