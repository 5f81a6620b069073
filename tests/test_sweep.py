"""Sweeps: the grid, jobs in processes of their own, the ranking, and one 2x2 sweep through the command."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import LITTLE, summary

from dltrain.cli import main
from dltrain.config.errors import ConfigError
from dltrain.sweep.grid import expand, varying
from dltrain.sweep.launcher import Launcher
from dltrain.sweep.summary import rank

FEW = ("trainer.epochs=1", "trainer.limit_train_batches=12", "data.batch_size=16", "trainer.log_every=4")


def sweep(*overrides: str) -> tuple[int, Path, list[dict[str, str]]]:
    """Run a sweep on little data: its exit code, its folder and the rows of its sweep.csv."""
    code = main(["-m", *LITTLE, *FEW, *overrides, "outputs_dir=outputs", "name=sweep"])
    folder = Path("outputs/sweeps/sweep").resolve()
    with (folder / "sweep.csv").open() as file:
        return code, folder, list(csv.DictReader(file))


def test_a_grid_is_every_combination_the_last_override_fastest():
    jobs = expand(["model=lenet,mlp", "seed=range(2)", "trainer=smoke"])
    assert jobs == [
        ["model=lenet", "seed=0", "trainer=smoke"],
        ["model=lenet", "seed=1", "trainer=smoke"],
        ["model=mlp", "seed=0", "trainer=smoke"],
        ["model=mlp", "seed=1", "trainer=smoke"],
    ]
    assert varying(jobs) == ["model=lenet seed=0", "model=lenet seed=1", "model=mlp seed=0", "model=mlp seed=1"]


def test_lists_are_values_and_choices_are_several():
    assert expand(["data.classes=[0,6],[1,2]"]) == [["data.classes=[0,6]"], ["data.classes=[1,2]"]]
    assert expand(["optim.lr=choice(0.1,0.2)"]) == [["optim.lr=0.1"], ["optim.lr=0.2"]]
    with pytest.raises(ConfigError, match="interval"):
        expand(["optim.lr=interval(0,1)"])


def test_the_best_validation_comes_first_and_failures_last():
    none = {"test_accuracy": None, "test_loss": None, "train_accuracy": None, "train_loss": None}
    rows = [
        {"job": 0, "status": "completed", "val_accuracy": 0.5, "val_loss": 1.0, **none},
        {"job": 1, "status": "failed", "val_accuracy": None, "val_loss": None, **none},
        {"job": 2, "status": "completed", "val_accuracy": 0.7, "val_loss": 2.0, **none},
    ]
    ranked, column = rank(rows)
    assert [row["job"] for row in ranked] == [2, 0, 1]
    assert column == "val_accuracy"
    regression = [{**row, "val_accuracy": None} for row in rows]
    ranked, column = rank(regression)
    assert [row["job"] for row in ranked] == [0, 2, 1]
    assert column == "val_loss"


def end(how: str) -> int:
    """A job that ends in one of several ways."""
    if how == "raise":
        raise ValueError("on purpose")
    if how == "exit":
        sys.exit(5)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10)
    return 0


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("return", 0, ""), ("raise", 1, "ValueError: on purpose"), ("exit", 5, "exit code 5"), ("kill", -9, "SIGKILL")],
)
def test_a_job_that_ends_in_any_way_is_named(how, code, words):
    outcome = Launcher(preload=()).run(end, how)
    assert outcome.code == code
    assert code == 0 or words in outcome.words


def test_a_two_by_two_sweep_runs_ranks_and_draws(capsys):
    code, folder, rows = sweep("model=mlp,lenet", "optim=sgd,adam")
    assert code == 0
    assert {path.name for path in folder.iterdir()} == {*"0123", "sweep.jsonl", "sweep.csv", "sweep.png", "sweep.svg"}
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    accuracies = [float(row["val_accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    for row in rows:
        best = summary(folder / row["job"])["best"]["value"]
        assert float(row["val_accuracy"]) == best
    assert {row["setting"] for row in rows} == {
        f"model={m} optim={o}" for m in ("mlp", "lenet") for o in ("sgd", "adam")
    }
    shown = capsys.readouterr().out
    assert "Ranked by val accuracy" in shown
    assert "one seed proves little" in shown


def test_a_failing_job_does_not_stop_the_others(capsys):
    code, folder, rows = sweep("model=mlp", "data.batch_size=16,100000,8")
    assert code == 3
    assert [row["status"] for row in rows] == ["completed", "completed", "failed"]
    assert "100000" in rows[-1]["cause"]
    assert not (folder / "1").exists(), "a refused job leaves nothing"
    assert "100000" in capsys.readouterr().out


def test_a_grid_that_names_an_unknown_option_is_refused_before_anything_starts(capsys):
    assert main(["-m", *LITTLE, "model=mlp,resnet19", "outputs_dir=outputs"]) == 78
    assert "resnet19" in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_job_equals_its_single_run():
    _, folder, _ = sweep("model=mlp", "seed=0,1", "device.threads=1")
    assert main([*LITTLE, *FEW, "model=mlp", "seed=1", "device.threads=1", "name=single", "outputs_dir=outputs"]) == 0
    single = summary(Path("outputs/runs/single"))
    assert summary(folder / "1")["weights_sha256"] == single["weights_sha256"]


def test_a_sweep_name_that_is_taken_is_refused(capsys):
    few = ["-m", *LITTLE, "model=mlp", "data.batch_size=100000", "seed=0,1", "outputs_dir=outputs", "name=sweep"]
    assert main(few) == 3
    shown = capsys.readouterr().out
    assert "No job completed" in shown
    assert "picture" not in shown, "none was drawn"
    assert main(few) == 78
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
@pytest.mark.parametrize("started", [False, True])
def test_a_signal_ends_a_sweep_with_its_table(number, code, started, tmp_path):
    words = [*LITTLE, "model=mlp", "trainer.epochs=500", "seed=1,2", "name=s"]
    process = subprocess.Popen([sys.executable, "-m", "dltrain", "-m", *words], stdout=subprocess.PIPE, text=True)
    job = tmp_path / "outputs/sweeps/s/0"
    while not (job / "metrics.jsonl" if started else job.parent).exists():
        time.sleep(0.01)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    if started:
        assert "table    outputs/sweeps/s/sweep.csv" in out
        assert (job.parent / "sweep.csv").read_text().count("interrupted") == 2
    assert not (job.parent / "1").exists()
