"""Presets that are sweeps, and what a sweep or a run means from another directory."""

import csv
import shutil
import time
from pathlib import Path

import pytest
from helpers import LITTLE, summary

from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data.idx_file import encode
from dltrain.verbs import _composing, _sweep_search, _sweep_start

FEW = (*LITTLE, "trainer.epochs=1", "trainer.limit_train_batches=3", "data.batch_size=16", "device.threads=1")
GRID = "hydra: {sweeper: {params: {model: 'mlp,lenet', seed: '1,2,3'}}}\n"
SEARCH = """sweep: {search: optuna, trials: 4}
hydra: {sweeper: {params: {optim.lr: 'interval(0.1,1)', data.batch_size: '8,16'}}}
"""


@pytest.fixture
def jobs(monkeypatch):
    """The jobs of the sweep that is asked for; nothing is run."""
    found: list[str] = []

    def record(jobs, compositions, **_):
        found.extend(" ".join(word for word in job if not word.startswith("experiment=")) for job in jobs)
        return 0

    monkeypatch.setattr(_sweep_start, "sweep", record)
    return found


def preset(text: str, name: str = "mine") -> None:
    Path("extra/experiment").mkdir(parents=True, exist_ok=True)
    Path(f"extra/experiment/{name}.yaml").write_text(f"# @package _global_\n{text}")


def ask(*words: str) -> int:
    return main([*words, "--config-dir", "extra"])


def test_a_preset_with_parameters_is_the_grid_and_the_command_line_wins_key_by_key(jobs, capsys):
    preset(GRID)
    assert ask("-m", "experiment=mine") == 0
    assert jobs == [f"model={model} seed={seed}" for model in ("mlp", "lenet") for seed in (1, 2, 3)]
    assert "experiment=mine asks for model=mlp,lenet seed=1,2,3\n" in capsys.readouterr().out
    jobs.clear()
    assert ask("-m", "experiment=mine", "seed=7") == 0
    assert jobs == ["model=mlp seed=7", "model=lenet seed=7"]
    assert "experiment=mine asks for model=mlp,lenet\n" in capsys.readouterr().out
    jobs.clear()
    assert ask("-m", "experiment=mine,null", "seed=8,9", "model=mlp") == 0
    assert jobs == ["seed=8 model=mlp", "seed=9 model=mlp"] * 2


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (GRID, ["experiment=mine"], "experiment=mine is a sweep of model=mlp,lenet seed=1,2,3: add -m"),
        (SEARCH, ["-m", "experiment=mine,null"], "experiment=mine is a search with optuna, which takes one experiment"),
        ("defaults: [override /hydra/sweeper: optuna]\n", ["-m", "experiment=mine"], "sweep: {search: optuna}"),
        ("defaults: [override /hydra/launcher: joblib]\n", ["experiment=mine"], "sweep: {launcher: submitit_slurm}"),
        ("hydra: {sweeper: {params: {name: 'a,b'}}}\n", ["-m", "experiment=mine"], "name=a,b: that is one for all"),
        ("hydra: {sweeper: {params: {sed: '1,2'}}}\n", ["-m", "experiment=mine"], "unknown key sed"),
        (SEARCH.replace("data.batch_size", "sed"), ["-m", "experiment=mine"], "unknown key sed"),
        (SEARCH.replace("data.batch_size", "name"), ["-m", "experiment=mine"], "name=8,16: that is one for all jobs"),
    ],
)
def test_what_a_preset_may_not_ask_for_is_said_in_one_line(text, words, message, capsys):
    preset(text)
    assert ask(*words) == 78
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_preset_with_a_search_is_what_optuna_chooses_from(monkeypatch, capsys):
    pytest.importorskip("optuna")
    spaces = []
    monkeypatch.setattr(_sweep_search.SearchSweep, "go", lambda sweep: spaces.append(sweep.search.space) or 0)
    preset(SEARCH)
    assert ask("-m", "experiment=mine", "data.batch_size=8,24", "name=first") == 0
    assert main(["resume", "first"]) == 0
    assert "experiment=mine asks for optim.lr=interval(0.1,1)\n" in capsys.readouterr().out
    assert [set(space) for space in spaces] == [{"optim.lr", "data.batch_size"}] * 2
    assert spaces[0]["data.batch_size"].choices == ("8", "24")


def test_composing_many_jobs_is_said_where_it_takes_long(monkeypatch, capsys):
    def slowly(jobs, **_):
        for number, _ in enumerate(jobs):
            time.sleep(0.002 if number else 0.02)
        return []

    monkeypatch.setattr(_composing, "SILENT_SECONDS", 0.01)
    monkeypatch.setattr(_composing, "compose_all", slowly)
    _composing.compose_jobs([["seed=1"]] * 5)
    assert capsys.readouterr().out == ""
    _composing.compose_jobs([["seed=1"]] * 30)
    assert capsys.readouterr().out == "composing 30 jobs\n"


def undo(job: int) -> None:
    """A job as if its sweep had been killed before it ended."""
    folder = Path("outputs/sweeps/sweep")
    (folder / str(job) / "summary.json").unlink()
    lines = (folder / "sweep.jsonl").read_text().splitlines(True)
    (folder / "sweep.jsonl").write_text("".join(line for line in lines if f'"end", "job": {job}' not in line))


def rates() -> list[tuple[str, str]]:
    with Path("outputs/sweeps/sweep/sweep.csv").open() as file:
        return sorted((line["job"], line["optim.lr"]) for line in csv.DictReader(file))


def test_a_job_that_has_begun_keeps_its_configuration_whatever_becomes_of_the_preset(capsys):
    preset("optim: {lr: 0.1}\n")
    words = ("-m", *FEW, "model=mlp", "experiment=mine", "name=sweep", "sweep.keep=all")
    assert ask(*words, "seed=1,2") == 0
    undo(1)
    preset("optim: {lr: 0.2}\n")
    assert ask(*words, "seed=1,2,3") == 0
    shown = capsys.readouterr().out
    assert "the same words mean other settings now than when 2 jobs were listed: they keep what they began" in shown
    assert "note: jobs of the same words have run with other values of optim.lr: they stand apart" in shown
    assert rates() == [("0", "0.1"), ("1", "0.1"), ("2", "0.2")], "two settings, not one"
    undo(0)
    record = Path("outputs/sweeps/sweep/0/metrics.jsonl")
    record.write_text("".join(record.read_text().splitlines(True)[:1]))
    shutil.rmtree("extra")
    assert main(["resume", "sweep"]) == 3
    assert main(["resume", "sweep", "--allow-changes"]) == 0
    assert rates() == [("0", "0.1"), ("1", "0.1"), ("2", "0.2")]


def idx_files(folder: str) -> None:
    """The four files of a data set with which one can train."""
    import numpy

    Path(folder).mkdir()
    for part, count in (("train", 120), ("t10k", 40)):
        images = numpy.random.default_rng(0).integers(0, 255, (count, 28, 28), dtype=numpy.uint8)
        Path(folder, f"{part}-images-idx3-ubyte").write_bytes(encode(images))
        Path(folder, f"{part}-labels-idx1-ubyte").write_bytes(encode((numpy.arange(count) % 10).astype(numpy.uint8)))


RELATIVE = (
    "data=idx",
    "data.root=files",
    "data.val_size=20",
    "data.batch_size=16",
    "data.image_size=28",
    "device=cpu",
    "model=mlp",
    "trainer.epochs=1",
    "device.threads=1",
)


def test_relative_paths_mean_the_same_from_every_directory(monkeypatch):
    idx_files("files")
    assert main([*RELATIVE, "name=run"]) == 0
    assert main(["-m", *RELATIVE, "seed=1,2", "name=sweep", "sweep.keep=all"]) == 0
    (Path("outputs/sweeps/sweep/1/summary.json")).unlink()
    ledger = Path("outputs/sweeps/sweep/sweep.jsonl")
    ledger.write_text("".join(line for line in ledger.read_text().splitlines(True) if '"end", "job": 1' not in line))
    outputs, elsewhere = Path("outputs").resolve(), Path("elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", str(outputs / "runs/run"), "trainer.epochs=2"]) == 0
    assert summary(outputs / "runs/run")["epochs"] == 2
    assert main(["resume", str(outputs / "sweeps/sweep")]) == 0
    assert summary(outputs / "sweeps/sweep/1")["status"] == "completed"
    ledger = outputs / "sweeps/sweep/sweep.jsonl"
    assert ledger.read_text().count('"event": "job"') == 2, "the jobs are known again"
    assert not list(Path().iterdir())


def test_the_file_of_a_study_is_made_absolute_too():
    here = Path.cwd()
    for given, expected in {
        "sqlite:///study.db": f"sqlite:///{here}/study.db",
        "sqlite:////all/study.db": "sqlite:////all/study.db",
        "journal:study.log": f"journal:{here}/study.log",
        "postgresql://host/name": "postgresql://host/name",
    }.items():
        assert compose([f"sweep.storage='{given}'"]).config.sweep.storage == expected
    assert compose(['data.root="~/files"']).config.data.root == str(Path("~/files").expanduser())
