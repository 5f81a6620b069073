"""`dltrain lr-find`: the rates it goes through, what it makes of the losses, and what it leaves alone."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import LITTLE, train

from dltrain.cli import main
from dltrain.engine import Engine
from dltrain.run.range_test import Runaway, judge
from dltrain.run.record import read_rows

FOLDER = Path("outputs/lr-find/test")
MLP = (*LITTLE, "model=mlp", "optim=sgd")


def found(*words: str, expected: int = 0):
    """What the verb leaves: its JSON and its rows."""
    assert main(["lr-find", *words, "name=test", "--debug"]) == expected
    return json.loads((FOLDER / "lr-find.json").read_text()), read_rows(FOLDER)


def rows_of(losses) -> list[dict]:
    rates = np.geomspace(1e-6, 10, len(losses))
    return [{"lr": rate, "loss": loss} for rate, loss in zip(rates.tolist(), losses, strict=True)]


def test_the_suggestion_is_a_third_of_the_rate_where_a_known_curve_is_least():
    logs = np.linspace(-6, 1, 141)
    noise = 0.02 * np.random.default_rng(0).standard_normal(141)
    falling = 2.3 - 1.5 / (1 + np.exp(-4 * (logs + 2)))  # falls most steeply at 1e-2
    losses = falling + 4 * np.maximum(logs + 0.5, 0) ** 2  # and turns at 10 ** -0.5
    verdict = judge(rows_of((losses + noise).tolist()))
    assert verdict.steepest == pytest.approx(1e-2, rel=0.35)
    assert verdict.least == pytest.approx(10 ** logs[losses.argmin()], rel=0.5)
    assert verdict.suggestion == pytest.approx(verdict.least / 3, rel=0.15)
    assert 1 < verdict.diverged < 3
    assert f"{verdict.suggestion:g} is, to one digit, a third of the rate where it is least" in verdict.reason


def test_there_is_no_suggestion_where_nothing_was_learned():
    noise = 0.05 * np.random.default_rng(0).standard_normal(100)
    flat = judge(rows_of((2.3 + noise).tolist()))
    assert (flat.suggestion, flat.diverged) == (None, None)
    assert "never fell" in flat.reason
    at_once = judge(rows_of([2.3, 1e4, None]))
    assert at_once.suggestion is None
    assert "diverged within 3 steps" in at_once.reason
    rising = judge(rows_of([2.3] * 60 + [2.3 + 0.3 * step for step in range(20)] + [None]))
    assert rising.suggestion is None
    assert "never fell" in rising.reason
    assert rising.diverged < 10


def test_a_test_ends_where_the_smoothed_loss_runs_away_and_not_at_one_bad_batch():
    losses = [2.0] * 20 + [12.0] + [2.0] * 10
    runaway = Runaway()
    assert not any(runaway.over(loss) for loss in losses)
    assert any(runaway.over(20.0) for _ in range(10))
    assert Runaway().over(None)


def test_it_trains_with_rates_that_grow_and_looks_at_training_batches_alone(monkeypatch, capsys):
    rates = []
    set_rates = Engine._set_rates
    monkeypatch.setattr(Engine, "_set_rates", lambda self, all_: (rates.append(all_), set_rates(self, all_))[1])
    monkeypatch.setattr(Engine, "score", lambda *_: pytest.fail("an evaluation"))
    result, rows = found(*MLP, "--to", "100", "--steps", "60", "schedule=cosine", "schedule.warmup=20")
    steps = result["steps"]
    assert 20 < steps < 60, "more steps than an epoch has, and an end before the last one"
    assert [row["split"] for row in rows] == ["train"] * steps
    np.testing.assert_allclose([row["lr"] for row in rows], np.geomspace(1e-7, 100, 60)[:steps])
    np.testing.assert_allclose(np.array(rates)[:, -1], np.geomspace(1e-7, 100, 60)[:steps])
    assert 0.01 <= result["suggestion"] <= 1
    assert {"lr-find.png", "lr-find.svg", "trial.yaml", "environment.json"} <= {p.name for p in FOLDER.iterdir()}
    printed = capsys.readouterr().out
    assert result["reason"] in printed
    assert main(["resume", str(FOLDER)]) == 78, "it is no run"
    line = re.search(r"to train with it: dltrain (.*)", printed)[1]
    assert f"optim.lr={result['suggestion']:g}" in shlex.split(line)
    assert main([*shlex.split(line), "--cfg", "job"]) == 0


def test_the_losses_are_those_of_training_at_those_rates():
    _, rows = found(*MLP, "--steps", "20", "--from", "0.01", "--to", "0.0100001")
    trained = read_rows(train("model=mlp", "optim=sgd", "trainer.epochs=4", "trainer.log_every=1", "optim.lr=0.01"))
    ends = {5, 10, 15, 20}  # whose rows are of whole epochs there
    there = {row["step"]: row["loss"] for row in trained if row["split"] == "train" and row["step"] not in ends}
    mine = {row["step"]: row["loss"] for row in rows if row["step"] in there}
    assert len(mine) == 16
    assert mine == pytest.approx({step: there[step] for step in mine}, rel=1e-4)


@pytest.mark.parametrize(
    ("words", "suggests"), [(["--to", "1e-6"], "never fell"), (["--from", "1e6", "--to", "1e9"], "diverged within")]
)
def test_it_says_why_there_is_no_suggestion(words, suggests, capsys):
    result, _ = found(*MLP, *words)
    assert result["suggestion"] is None
    assert f"no suggestion: {result['reason']}" in capsys.readouterr().out
    assert suggests in result["reason"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim=lbfgs"], "optim=lbfgs: it searches for the length of every step itself"),
        (["optim=sgd,adam"], "optim=sgd,adam: dltrain lr-find takes one setting"),
        (["-m"], "-m: dltrain lr-find takes one setting"),
        (["--from", "1", "--to", "0.1"], "--from 1 --to 0.1: must be rates above 0 that rise"),
        (["--steps", "3"], "--steps 3: must be 20 or more"),
        (["data=function"], "data=function: dltrain lr-find is for data sets"),
        (["experiment=bn_study"], "experiment=bn_study is a sweep"),
        (["device.count=2"], "device.count=2: dltrain lr-find takes its steps on one device"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(words, message, capsys):
    assert main(["lr-find", *words]) == 78
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_taken_name_is_refused(capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / "mine").touch()
    assert main(["lr-find", *MLP, "name=test"]) == 78
    assert "is there already; choose another name" in capsys.readouterr().err
    assert [path.name for path in FOLDER.iterdir()] == ["mine"]
