"""Sweeps whose jobs have several ranks: two gloo ranks a job on this machine, and places for them on GPUs made up."""

import csv
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faults
import pytest
from helpers import LITTLE, rows, summary

from dltrain.cli import main
from dltrain.config.compose import Composition, compose
from dltrain.sweep import slots as slots_of
from dltrain.sweep.cluster import ClusterLauncher
from dltrain.sweep.launcher import Launcher
from dltrain.sweep.slots import Slot, slots
from dltrain.verbs._job import fitted

RUN = (
    *LITTLE, "data.num_test=65", "data.val_size=63", "data.batch_size=16", "model=mlp", "model.norm=batch",
    "augment=flip", "device.precision=fp32", "device.threads=1", "trainer.epochs=16", "trainer.log_every=3",
    "trainer.checkpoint_every=1000 epochs",
)  # fmt: skip
FOLDER = Path("outputs/sweeps/sweep")
NUMBERS = ("step", "split", "loss", "accuracy")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-b,6,7,8")


def composed(*words: str) -> Composition:
    return compose([*words])


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["device.count=2"], [("4", "GPU-b"), ("6", "7")]),
        (["device.count=5"], [("4", "GPU-b", "6", "7", "8")]),
        (["device.count=2", "sweep.jobs_per_gpu=2"], [("4", "GPU-b"), ("6", "7")] * 2),
        (["device.count=2", "sweep.jobs=1"], [("4", "GPU-b")]),
    ],
)
def test_a_job_of_several_ranks_has_a_gpu_for_each(words: list[str], places: list[Any], two_gpus) -> None:
    assert [slot.gpus for slot in slots([composed(*words).config] * 9)] == places
    alone = composed(*words[1:], "device.count=1").config
    mixed = [alone, composed(*words).config, *[alone] * 7]
    assert [slot.gpus for slot in slots(mixed)] == places, "a place is for the job with the most ranks"


@pytest.mark.parametrize(
    ("words", "place", "at_a_time", "threads"),
    [
        ([], 2, 4, [2, 1]),
        (["device.threads=3"], 6, 1, [3, 3]),
        (["sweep.jobs=1"], 8, 1, [8, 4]),
        (["sweep.jobs=6"], 2, 6, [2, 1]),
    ],
)
def test_the_ranks_of_a_job_share_the_threads_of_its_place(
    words: list[str], place: int, at_a_time: int, threads: list[int], monkeypatch
) -> None:
    monkeypatch.setattr(slots_of, "available_cores", lambda: 8)
    monkeypatch.setattr(slots_of, "_free_memory", lambda: 2**40)
    jobs = [composed("device=cpu", f"device.count={count}", *words) for count in (1, 2)]
    places = slots([job.config for job in jobs] * 6)
    assert places == [Slot(place)] * at_a_time
    assert [fitted(job, places[0]).config.device.threads for job in jobs] == threads


@pytest.mark.parametrize(
    ("words", "surroundings", "message"),
    [
        (["device.count=1,6"], {"CUDA_VISIBLE_DEVICES": "0,1"}, "device.count=6: there are 2 cuda here"),
        (["device=mps", "device.count=2"], {}, "device.count=2: there is 1 mps here"),
        (
            ["hydra/launcher=submitit_local", "device.count=1,2"],
            {},
            "device.count=2: a job asks for sweep.slurm.gpus=1",
        ),
        (["device.count=2"], {"RANK": "0", "WORLD_SIZE": "2"}, "-m under torchrun: a sweep starts the ranks"),
        (
            ["hydra/sweeper=optuna", "data.val_size=6", "device.count=1,6"],
            {"CUDA_VISIBLE_DEVICES": "0"},
            "device.count=6: there is 1 cuda here",
        ),
    ],
)
def test_more_ranks_than_devices_are_refused_before_anything_is_written(
    words: list[str], surroundings: dict[str, str], message: str, monkeypatch, capsys
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    assert main(["-m", *LITTLE[:-1], "model=mlp", "trainer=smoke", "seed=1", *words]) == 78
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("outputs").exists()


def test_a_job_of_a_cluster_is_on_one_node_with_a_gpu_a_rank(tmp_path: Path) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text('#!/bin/sh\ncp "$1" "$(dirname "$0")/script"\necho Submitted batch job 17\n')
        (tmp_path / name).chmod(0o755)
    words = ["device.count=2", "sweep.slurm.gpus=2", "sweep.slurm.cpus=6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=":")
        launcher = ClusterLauncher(print, composed(*words).config, tmp_path, cluster="slurm", all_known=True)
        launcher._submit(["a"])
    script = (tmp_path / "script").read_text()
    for line in ("--nodes=1", "--gpus-per-node=2", "--cpus-per-task=6"):
        assert line in script, script
    assert fitted(composed(*words), launcher.slot).config.device.threads == 3


def lose_a_rank(job: str, slot: Slot) -> int:
    """What a job's process does whose ranks have said why they end."""
    print("a warning\ndltrain: rank 1: out of memory\ndltrain: another one", file=sys.stderr)
    return 71


def test_a_job_fails_with_the_words_of_the_rank_that_failed_this_time(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("dltrain: what was said when it was tried before\n")
    [(_, outcome)] = Launcher(lose_a_rank, [Slot()], errors=tmp_path.joinpath).run(["job"])
    assert (outcome.code, outcome.words) == (71, "rank 1: out of memory")


def numbers(folder: Path) -> list[dict[str, Any]]:
    return [{key: row.get(key) for key in NUMBERS} for row in rows(folder)]


def events(kind: str) -> list[dict[str, Any]]:
    lines = (FOLDER / "sweep.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def family(pid: int) -> list[int]:
    """A process and all that come of it."""
    return [pid, *(each for child in children(pid) for each in family(child))]


def wait_until(holds: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def trains(job: str, more_than: int = 0) -> bool:
    return (FOLDER / job / "metrics.jsonl").is_file() and len(rows(FOLDER / job)) > more_than


def process_of(job: str) -> int:
    """The process of a job, whose first rank has the lock of the run."""
    first = json.loads((FOLDER / job / ".lock").read_text())["pid"]
    return int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks in Linux's /proc")
def test_jobs_of_two_ranks_that_are_killed_and_interrupted_go_on_to_the_bits_of_the_run_alone() -> None:
    alone = faults.start(*RUN, "device.count=2", "seed=2", "name=alone")
    sweep = ("-m", *RUN, "seed=1,2", "sweep.jobs=2", "name=sweep")

    process = faults.start(*sweep, "device.count=2")
    wait_until(lambda: trains("0") and trains("1"))
    everyone = family(process.pid)
    first = process_of("0")
    assert len(children(first)) == 2
    ranks = children(first)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{rank}").exists() for rank in ranks))
    assert summary(FOLDER / "0")["status"] == "interrupted", "ranks whose job is gone save and end"
    wait_until(lambda: events("end"))
    assert trains("1"), "the other one goes on"
    os.kill(process.pid, signal.SIGTERM)
    process.join(120)
    assert process.exitcode == 143
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in everyone))
    assert [(event["job"], event["status"]) for event in events("end")] == [(0, "failed"), (1, "interrupted")]
    assert "killed by SIGKILL" in events("end")[0]["cause"]
    states = [path.parent.name for path in (FOLDER / "1/checkpoints").glob("*/optim.safetensors")]
    assert states == [f"step-{summary(FOLDER / '1')['steps']:08}"]

    had = len(rows(FOLDER / "0"))
    process = faults.start(*sweep, "device.count=2,1")
    wait_until(lambda: trains("0", had))
    everyone = family(process.pid)
    os.kill(children(process_of("0"))[1], signal.SIGKILL)
    process.join(120)
    assert process.exitcode == 3, Path("terminal").read_text()
    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in everyone))
    with (FOLDER / "sweep.csv").open() as file:
        lines = {line["job"]: line for line in csv.DictReader(file)}
    assert {job: line["status"] for job, line in lines.items()} == {"0": "failed", **dict.fromkeys("123", "completed")}
    assert lines["0"]["cause"].startswith("rank 1 was killed by SIGKILL")
    assert [lines[job]["ranks"] for job in "123"] == ["2", "1", "1"]
    assert not list((FOLDER / "1/checkpoints").glob("*/optim.safetensors")), "completed jobs keep their weights alone"

    alone.join(120)
    assert summary(FOLDER / "1")["bit_exact"]
    assert numbers(FOLDER / "1") == numbers(Path("outputs/runs/alone"))
    assert summary(FOLDER / "1")["weights_sha256"] == summary(Path("outputs/runs/alone"))["weights_sha256"]
