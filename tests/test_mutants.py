"""Mistakes put into the training code are caught by the checks that a team's CI runs: smoke, overfit, ci."""

from pathlib import Path

import pytest
from mutants import MUTANTS, mutated

from dltrain.cli import main
from dltrain.verbs._ci import STAGES

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
    "ci": ("trainer=ci",),
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


QUICK_IN_CI = ("shuffled_labels", "optimizer_not_restored", "stale_checkpoint", "unstandardized_prediction")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("dltrain.report.run_pictures.draw_run", lambda folder: None)
    without = {name: stage for name, stage in STAGES.items() if name != "export"}  # tested elsewhere
    monkeypatch.setattr("dltrain.verbs._ci.STAGES", without)


def check(name: str, *needs: str) -> int:
    """The exit code of a check."""
    return main([*CHECKS[name], *LITTLE, *needs])


@pytest.mark.parametrize("name", CHECKS)
def test_sound_code_passes(name):
    assert check(name) == 0


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("needs", sorted({each.needs for each in MUTANTS.values()}), ids=",".join)
def test_sound_code_passes_whatever_is_configured(name, needs):
    assert check(name, *needs) == 0


@pytest.mark.parametrize("mutant", QUICK)
def test_overfit_catches(mutant, capsys):
    with mutated(mutant):
        assert check("overfit", *MUTANTS[mutant].needs) == 70
    assert "failed: " in capsys.readouterr().out


@pytest.mark.parametrize("mutant", QUICK_IN_CI)
def test_ci_catches(mutant, capsys):
    with mutated(mutant):
        assert check("ci", *MUTANTS[mutant].needs) == 70
    assert "check failed: " in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_check_catches_what_it_is_said_to(mutant):
    with mutated(mutant):
        caught = {name for name in CHECKS if check(name, *MUTANTS[mutant].needs) != 0}
    assert caught == MUTANTS[mutant].caught_by


def test_nine_of_ten_are_caught_and_the_page_says_by_what():
    assert len(MUTANTS) >= 20
    caught = [name for name, each in MUTANTS.items() if each.caught_by]
    assert len(caught) >= 0.9 * len(MUTANTS)
    page = (Path(__file__).parents[1] / "docs/first-checks.md").read_text()
    for name, each in MUTANTS.items():
        marks = " | ".join("caught" if check in each.caught_by else "" for check in CHECKS)
        assert f"| `{name}` | {each.what} | {marks} |" in page
