"""Optuna's search: what it chooses from, what it is told, and what is left of it after a kill."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from helpers import LITTLE, summary
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from dltrain.cli import main
from dltrain.config.compose import compose, parse
from dltrain.config.errors import ConfigError
from dltrain.sweep.grid import expand
from dltrain.sweep.search import Search
from dltrain.sweep.space import distribution

FEW = ("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=6", "data.batch_size=16", "device.threads=1")
RATES = "optim.lr=tag(log,interval(0.0001,0.1))"
OPTUNA = "hydra/sweeper=optuna"
FOLDER = Path("outputs/sweeps/search")


def command(*words: str, name: str = "search") -> list[str]:
    return ["-m", OPTUNA, *LITTLE, *FEW, f"name={name}", *words]


def study(storage: str = "", name: str = "sweep") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=storage or f"sqlite:///{FOLDER.resolve()}/study.db")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RATES, FloatDistribution(0.0001, 0.1, log=True)),
        ("trainer.ema=interval(0.5,0.9)", FloatDistribution(0.5, 0.9)),
        ("data.batch_size=int(interval(8,64))", IntDistribution(8, 64)),
        ("data.batch_size=tag(log,int(interval(8,64)))", IntDistribution(8, 64, log=True)),
        ("data.batch_size=range(8,65,8)", IntDistribution(8, 64, step=8)),
        ("trainer.ema=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("optim=sgd,adam", CategoricalDistribution(["sgd", "adam"])),
        ("optim.lr=choice(0.1,0.01)", CategoricalDistribution(["0.1", "0.01"])),
    ],
)
def test_hydras_ranges_are_optunas_distributions(text, expected):
    assert distribution(parse(text)) == expected


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("random", marks=pytest.mark.long)])
def test_a_search_chooses_tells_and_ranks(sampler, capsys):
    words = (RATES, "optim=sgd,adam", "sweep.trials=3", f"sweep.sampler={sampler}", "sweep.jobs=2")
    assert main(command(*words)) == 0
    trials = study().trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    with (FOLDER / "sweep.csv").open() as file:
        lines = {int(line["job"]): line for line in csv.DictReader(file)}
    for trial in trials:
        assert trial.value == summary(FOLDER / str(trial.number))["best"]["value"]
        assert float(lines[trial.number]["optim.lr"]) == trial.params["optim.lr"]
        assert lines[trial.number]["optim"] == trial.params["optim"]
    shown = capsys.readouterr().out
    assert "Ranked by val accuracy" in shown
    best = next(line for line in lines.values() if line["rank"] == "1")
    (advice,) = [line for line in shown.splitlines() if "repeat the best: " in line]
    words = shlex.split(advice.partition("repeat the best: ")[2])
    assert words[:2] == ["dltrain", "-m"]
    assert {f"optim.lr={best['optim.lr']}", f"optim={best['optim']}", "seed=1,2,3", *FEW} <= {*words}
    assert len(expand(words[2:])) == 3
    assert main(["resume", "search", "sweep.trials=4"]) == 0
    assert len(study().trials) == 4
    assert main(["resume", "search", "sweep.trials=4"]) == 0
    assert "there is nothing left to run" in capsys.readouterr().out


def test_a_grid_is_searched_as_a_whole():
    assert main(command("optim=sgd,adam", "data.batch_size=range(8,17,8)", "sweep.sampler=grid", "sweep.trials=4")) == 0
    found = {(trial.params["optim"], trial.params["data.batch_size"]) for trial in study().trials}
    assert found == {("sgd", 8), ("sgd", 16), ("adam", 8), ("adam", 16)}


@pytest.mark.parametrize("pruner", ["median", pytest.param("asha", marks=pytest.mark.long)])
def test_trials_without_prospects_are_pruned(pruner, capsys):
    # Rates that learn come first, so that the last ones are behind from their first validation on.
    words = ("optim=adam", "optim.lr=0.003,0.002,0.004,0.001,1e-9,2e-9,3e-9,4e-9", "trainer.epochs=6")
    long = (*words, "trainer.limit_train_batches=null", "sweep.trials=8", "sweep.sampler=grid", "sweep.jobs=1")
    assert main(command(*long, f"sweep.pruner={pruner}")) == 0
    pruned = [trial for trial in study().trials if trial.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        assert summary(FOLDER / str(trial.number))["epochs"] < 6
        assert trial.intermediate_values
    assert "pruned" in capsys.readouterr().out
    assert "pruned" in (FOLDER / "sweep.csv").read_text()


def test_a_trial_that_fails_is_told_and_not_tried_again():
    assert main(command("data.batch_size=16,100000", "sweep.sampler=grid", "sweep.trials=2")) == 3
    states = sorted(trial.state.name for trial in study().trials)
    assert states == ["COMPLETE", "FAIL"]
    assert main(["resume", "search"]) == 3
    assert len(study().trials) == 2


@pytest.mark.parametrize("storage", ["sqlite:///shared.db", pytest.param("journal:shared.log", marks=pytest.mark.long)])
def test_two_processes_work_on_one_study(storage):
    words = (RATES, "sweep.trials=8", f"sweep.storage={storage}", "sweep.study=shared", "sweep.jobs=1")
    processes = [
        subprocess.Popen([sys.executable, "-m", "dltrain", *command(*words, name=name)], stdout=-1, text=True)
        for name in "ab"
    ]
    shown = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    if storage.startswith("journal"):
        from optuna.storages.journal import JournalFileBackend

        trials = optuna.load_study(
            study_name="shared", storage=optuna.storages.JournalStorage(JournalFileBackend("shared.log"))
        ).trials
    else:
        trials = study(storage, "shared").trials
    assert 8 <= len(trials) <= 9, "both may ask for the last one at once"
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    jobs = {name: len(list(Path("outputs/sweeps", name).glob("*/summary.json"))) for name in "ab"}
    assert sum(jobs.values()) == len(trials)
    assert all(jobs.values()), jobs
    for name, text in zip("ab", shown, strict=True):
        assert f"of this study {jobs[name]} trials are this sweep's" in text


def test_processes_that_make_one_database_at_the_same_moment_all_open_it():
    code = "import sys; from dltrain.sweep.search import _storage; sys.stdin.read(1); _storage('sqlite:///shared.db')"
    preloaded = f"import optuna.storages, sqlalchemy.exc; {code}"
    processes = [subprocess.Popen([sys.executable, "-c", preloaded], stdin=-1) for _ in range(3)]
    time.sleep(3)  # all of them are waiting for a word
    for process in processes:
        process.stdin.close()
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]


def test_a_study_that_was_killed_goes_on_and_tells_all():
    words = command(RATES, "sweep.trials=5", "trainer.epochs=3", "trainer.checkpoint_every=2 steps", "sweep.jobs=2")
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([sys.executable, "-m", "dltrain", *words], stdout=-3, start_new_session=True)
        while not list(FOLDER.glob("*/checkpoints/step-*")):
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(process.pid, number)  # with the server that jobs are forked from
        process.wait()
    asked = study().ask({"optim.lr": FloatDistribution(0.0001, 0.1, log=True)})  # as if killed before it was recorded
    first = json.loads((FOLDER / "sweep.jsonl").read_text().splitlines()[0])
    asked.set_user_attr("sweep", first["command"]["id"])
    assert main(["resume", "search"]) == 0
    states = [trial.state.name for trial in study().trials]
    assert states.count("COMPLETE") == 5
    assert states[asked.number] == "FAIL"
    assert {*states} == {"COMPLETE", "FAIL"}, "a kill may come between asking and recording, too"
    ends = [json.loads(line) for line in (FOLDER / "sweep.jsonl").read_text().splitlines()]
    assert len([event for event in ends if event["event"] == "end" and event["status"] == "completed"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "a search needs something to choose"),
        ([RATES, "data.val_size=0"], "a search needs validation"),
        (["optim.lr=interval(0.1,0.01)"], "optim.lr: "),
        (["optim.lr=tag(log,interval(0,1))"], "optim.lr: "),
        ([RATES, "sweep.sampler=grid"], "sweep.sampler=grid needs values or a range"),
        ([RATES, "sweep.storage=here"], "must be such as sqlite:///study.db"),
        ([RATES, "sweep.sampler=cmaes"], "sweep.sampler=cmaes: must be one of tpe"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(words, message, capsys):
    assert main(command(*words)) == 78
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_study_about_something_else_is_refused_and_a_moved_one_goes_on(capsys):
    shared = (RATES, "sweep.trials=2", "sweep.storage=sqlite:///shared.db", "sweep.study=shared")
    assert main(command(*shared)) == 0
    assert main(command(*shared, "trainer.monitor=val_loss", name="other")) == 78
    assert "trainer.monitor is val_loss, and was val_accuracy where the study 'shared' began" in capsys.readouterr().err
    assert main(command("optim.lr=interval(0,1)", *shared[1:], name="third")) == 78
    assert "what is chosen is" in capsys.readouterr().err
    assert main(command(RATES, "sweep.trials=1", name="own")) == 0
    Path("outputs/sweeps/own").rename("moved")
    assert main(["resume", "moved", "sweep.trials=2"]) == 0
    assert {path.name for path in Path("moved").iterdir() if path.is_dir()} == {"0", "1"}


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install optuna"):
        Search([RATES], compose([]).config)


def test_the_same_suggestion_once_more_runs_nothing_and_has_the_earlier_result(capsys):
    assert main(command("optim=sgd,adam", "seed=2", "sweep.sampler=random", "sweep.trials=6", "sweep.jobs=2")) == 0
    trials = study().trials
    repeats = [trial for trial in trials if "same as" in trial.user_attrs]
    assert len(trials) - len(repeats) == len(list(FOLDER.glob("*/summary.json"))) == 2
    values = {(trial.params["optim"], trial.value) for trial in trials}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len(values) == 2, "a repeated trial has the value of the first"
    shown = capsys.readouterr().out
    assert "2/2  " in shown
    assert shown.count("counts once more") == len(repeats) > 0
    assert "every combination has been tried: the search has ended" in shown


def searching(words: list[str], name: str) -> Search:
    """A search as a sweep of this name begins it."""
    Path(name).mkdir(exist_ok=True)
    config = compose([word for word in words if not parse(word).is_sweep_override()]).config
    found = Search(words, config)
    found.begin(Path(name), identity=name)
    return found


def test_a_repeated_trial_waits_for_the_one_under_way_and_a_finished_space_ends_the_search():
    found = searching(["seed=1,2", "sweep.trials=9", "sweep.sampler=random"], "own")
    asked = found.ask()
    first, _ = next(asked)
    assert found.same_as(first, "key") is None
    second, _ = next(asked)
    assert found.same_as(second, "key") == first
    assert found.study.trials[second].state == TrialState.RUNNING
    found.tell(first, 0.5)
    assert [trial.value for trial in found.study.trials] == [0.5, 0.5]
    assert found.repeated == 1
    for trial, _ in asked:
        found.tell(trial, 0.1)
    assert {trial.params["seed"] for trial in found.study.trials} == {"1", "2"}
    assert found.is_exhausted


@pytest.mark.parametrize("storage", ["sqlite:///shared.db", "journal:shared.log"])
def test_trials_of_a_sweep_that_died_count_no_longer_and_those_of_one_alive_do(storage, monkeypatch):
    words = ["optim.lr=interval(0.1,1)", "sweep.trials=3", f"sweep.storage={storage}"]
    dead, alive = searching(words, "dead"), searching(words, "alive")
    next(dead.ask())
    dead.study.ask(dead.space)  # killed before it could say whose it is
    next(alive.ask())
    ours = searching(words, "ours")
    assert ours.left() == 0
    later = time.time() + 700
    monkeypatch.setattr(time, "time", lambda: later)
    alive.alive_at = -1000.0
    alive.show_life()
    monkeypatch.setattr(time, "time", lambda: later + 1)
    assert ours.left() == 2
    assert sorted(trial.state.name for trial in ours.study.trials) == ["FAIL", "FAIL", "RUNNING"]


def test_a_study_of_ones_own_forgets_at_once_what_a_kill_left():
    first = searching(["optim.lr=interval(0.1,1)", "sweep.trials=2"], "own")
    first.study.ask(first.space)
    assert first.left() == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lrr=interval(0.1,1)"], "unknown key optim.lrr"),
        (["optim=sgd,nothing"], "nothing"),
        (["optim.lr=interval(-2,-1)"], "optim.lr=-2.0: must be above 0"),
        (["model=glob(m*)"], "glob is not offered"),
        ([RATES, "sweep.sampler=grid"], "needs values or a range"),
        ([RATES, "seed=1,2"], "seed=1,2: a search would choose the luckiest"),
        ([RATES, "hydra/launcher=submitit_local"], "pip install submitit"),
    ],
)
def test_a_search_is_refused_before_it_has_a_folder(words, message, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(command(*words)) == 78
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_study_about_something_else_is_refused_without_a_folder():
    shared = ("sweep.storage=sqlite:///shared.db", "sweep.trials=1")
    searching([RATES, *shared], "first")
    assert main(command("optim.lr=interval(0,1)", *shared)) == 78
    assert not Path("outputs").exists()
