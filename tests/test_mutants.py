"""Mistakes put into the training code are caught by the checks that a team's CI runs: smoke, overfit."""

import pytest
from mutants import MUTANTS, mutated

from dltrain.cli import main

LITTLE = (
    "data=synthetic",
    "data.num_train=100",
    "data.num_test=32",
    "data.val_size=32",
    "data.image_size=28",
    "data.batch_size=16",
    "device=cpu",
    "device.precision=fp32",
    "model=mlp",
    "model.norm=batch",
)
CHECKS = {
    "smoke": ("trainer=smoke",),
    "overfit": ("overfit", "--steps", "40"),
}
QUICK = (
    "no_zero_grad",
    "evaluation_in_training_mode",
    "training_in_evaluation_mode",
    "frozen_layer",
    "norm_momentum_zero",
    "loss_summed",
    "softmax_before_cross_entropy",
    "labels_off_by_one",
)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("dltrain.report.run_pictures.draw_run", lambda folder: None)


def check(name: str, *needs: str) -> int:
    """The exit code of a check."""
    return main([*CHECKS[name], *LITTLE, *needs])


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("needs", sorted({each.needs for each in MUTANTS.values()}), ids=",".join)
def test_sound_code_passes(name, needs):
    assert check(name, *needs) == 0


@pytest.mark.parametrize("mutant", QUICK)
def test_overfit_catches(mutant, capsys):
    with mutated(mutant):
        assert check("overfit", *MUTANTS[mutant].needs) == 70
    assert "failed: " in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_check_catches_what_it_is_said_to(mutant):
    with mutated(mutant):
        caught = {name for name in CHECKS if check(name, *MUTANTS[mutant].needs) != 0}
    assert caught == MUTANTS[mutant].caught_by & CHECKS.keys()


def test_smoke_and_overfit_catch_most():
    assert len(MUTANTS) >= 20
    assert sum(bool(each.caught_by & CHECKS.keys()) for each in MUTANTS.values()) >= 15
