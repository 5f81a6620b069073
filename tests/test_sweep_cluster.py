"""Sweeps through submitit, whose local executor stands for the cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import LITTLE, rows, summary

from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.sweep.cluster import ClusterLauncher, Task
from dltrain.sweep.slots import Slot

FEW = (*LITTLE, "model=mlp", "trainer.epochs=1", "data.batch_size=16", "trainer.log_every=4", "device.threads=1")
CLUSTER = ("-m", "hydra/launcher=submitit_local", "name=sweep")
FOLDER = Path("outputs/sweeps/sweep")


def test_jobs_of_a_cluster_are_those_of_this_machine_and_failures_are_named(capsys):
    assert main([*CLUSTER, *FEW, "seed=1,2", "data.batch_size=16,100000"]) == 3
    shown = capsys.readouterr().out
    assert "64 at a time on local" in shown
    assert "100000" in shown
    assert main([*FEW, "seed=1", "name=single"]) == 0
    assert summary(FOLDER / "0")["weights_sha256"] == summary(Path("outputs/runs/single"))["weights_sha256"]
    assert main(["resume", "sweep", "sweep.launcher=local"]) == 3


LONG = (*FEW, "trainer.epochs=30", "trainer.checkpoint_every=1000 epochs", "seed=1")


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The run that a job of the cluster must equal."""
    outputs = tmp_path_factory.mktemp("single")
    assert main([*LONG, "name=single", f"outputs_dir={outputs}"]) == 0
    return outputs / "runs/single"


@pytest.mark.parametrize(
    "numbers",
    [*(pytest.param(each, marks=pytest.mark.long) for each in (["USR2"], ["TERM", "USR2"])), ["USR2", "TERM"]],
)
def test_a_job_that_must_give_way_saves_comes_again_and_goes_on(numbers, single):
    process = subprocess.Popen([sys.executable, "-m", "dltrain", *CLUSTER, *LONG], stdout=subprocess.PIPE)
    while not (FOLDER / "0/metrics.jsonl").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    job = json.loads((FOLDER / "0/.lock").read_text())["pid"]
    for number in numbers:
        os.kill(job, signal.Signals[f"SIG{number}"])
    process.communicate(timeout=120)
    assert process.returncode == 0
    result = summary(FOLDER / "0")
    assert (result["status"], result["bit_exact"]) == ("completed", True)
    assert len(result["resumed"]) == 1
    assert result["resumed"][0]["step"] > 0, "it was saved when it was asked to give way"
    assert result["weights_sha256"] == summary(single)["weights_sha256"]
    assert [row["loss"] for row in rows(FOLDER / "0")] == [row["loss"] for row in rows(single)]


def test_a_signal_cancels_the_jobs():
    words = [*CLUSTER, *FEW, "trainer.epochs=500", "seed=1,2"]
    process = subprocess.Popen([sys.executable, "-m", "dltrain", *words], stdout=subprocess.PIPE, text=True)
    while not all((FOLDER / job / "metrics.jsonl").exists() for job in "01"):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert (FOLDER / "sweep.csv").read_text().count("interrupted") == 2
    assert "table" in out


def test_a_search_asks_for_as_many_as_may_run():
    words = ["hydra/sweeper=optuna", "optim.lr=interval(0.001,0.1)", "sweep.trials=3", "sweep.slurm.at_once=2"]
    assert main([*CLUSTER, *FEW, *words]) == 0
    assert all(summary(FOLDER / job)["status"] == "completed" for job in "012")


def test_what_a_job_asks_of_slurm_is_what_the_configuration_says(tmp_path):
    words = ["sweep.slurm.partition=gpu", "sweep.slurm.cpus=6", "sweep.slurm.at_once=7", "sweep.slurm.minutes=30"]
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\ncp "$1" "$(dirname "$0")/script"\necho Submitted batch job 17\n')
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text(sbatch.read_text())
        (tmp_path / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=":")
        launcher = ClusterLauncher(print, compose(words).config, tmp_path, cluster="slurm", all_known=True)
        launcher._submit(["a", "b"])
    script = (tmp_path / "script").read_text()
    for line in (
        "--partition=gpu", "--cpus-per-task=6", "--array=0-1%2", "--time=30", "--gpus-per-node=1", "--signal=USR2@90",
    ):  # fmt: skip
        assert line in script, script
    assert [each.task.job_id for each in launcher.running] == ["17_0", "17_1"]


def sleep(job: None, slot: Slot) -> int:
    time.sleep(60)
    return 0


def test_a_job_of_a_cluster_that_takes_too_long_ends_as_failed():
    before = signal.getsignal(signal.SIGUSR2)
    assert Task(sleep, None, Slot(), timeout=0.2)() == (1, "timeout: no end within 0.2 s")
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.launcher=submitit_slurm"], "sweep.launcher=submitit_slurm: there is no sbatch here"),
        (["hydra/launcher=submitit_local", "sweep.jobs=2"], "sweep.jobs=2: of a cluster's jobs, sweep.slurm.at_once"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_written(words, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["-m", *FEW, "seed=1,2", *words]) == 78
    assert message in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_without_submitit_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install submitit"):
        ClusterLauncher(print, compose([]).config, tmp_path, cluster="local", all_known=True)
