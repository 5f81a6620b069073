"""Sweeps: the grid, places, jobs that end in any way, and what a sweep is after it was killed."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import LITTLE, rows, summary
from troubles import end

from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.data import idx_file
from dltrain.data.idx_file import encode
from dltrain.run.folder import RunError
from dltrain.run.lock import Lock
from dltrain.sweep import slots as slots_of
from dltrain.sweep.grid import expand, settings
from dltrain.sweep.launcher import Launcher
from dltrain.sweep.ledger import Ledger
from dltrain.sweep.slots import Slot, slots
from dltrain.verbs import _job, _sweep, _sweep_start

FEW = ("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=12", "data.batch_size=16", "trainer.log_every=4")
FOLDER = Path("outputs/sweeps/sweep")
ONE_THREAD = "device.threads=1"


def sweep(*overrides: str) -> tuple[int, list[dict[str, str]]]:
    """Run a sweep on little data: its exit code and the rows of its sweep.csv."""
    code = main(["-m", *LITTLE, *FEW, "name=sweep", *overrides])
    with (FOLDER / "sweep.csv").open() as file:
        return code, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """A sweep of two seeds that has completed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("two"))
        assert sweep("seed=1,2")[0] == 0
        yield FOLDER.resolve()


@pytest.fixture
def swept(two_seeds):
    """A copy of it, in this test's folder."""
    shutil.copytree(two_seeds, FOLDER)


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "dltrain", "-m", *LITTLE, *FEW, ONE_THREAD, "name=sweep", *overrides]


def events(kind: str) -> list[dict]:
    lines = (FOLDER / "sweep.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def test_a_grid_is_every_combination_the_last_override_fastest():
    jobs = expand(["model=lenet,mlp", "seed=range(2)", "trainer=smoke"])
    assert jobs == [
        ["model=lenet", "seed=0", "trainer=smoke"],
        ["model=lenet", "seed=1", "trainer=smoke"],
        ["model=mlp", "seed=0", "trainer=smoke"],
        ["model=mlp", "seed=1", "trainer=smoke"],
    ]
    assert settings(jobs)[1] == {"model": "lenet", "seed": "1"}


def test_a_job_is_labelled_with_what_its_configuration_has_at_a_key_that_came_later():
    jobs = [["model=mlp", "seed=1", "name=a"], ["model=mlp", "optim.lr=0.1", "sweep.resume=a"], ["model=mlp", "seed=2"]]
    known = {"optim.lr": "0.001", "seed": "0"}
    assert settings(jobs, lambda number, key: known[key]) == [
        {"seed": "1", "optim.lr": "0.001"},
        {"optim.lr": "0.1", "seed": "0"},
        {"seed": "2", "optim.lr": "0.001"},
    ]
    assert settings([["seed=1"], ["seed=1", "optim.lr=0.001"]], lambda number, key: known[key]) == [{}, {}]


def test_a_reference_is_shown_as_it_was_written():
    jobs = expand(["optim.weight_decay=${optim.lr},0.2"])
    assert settings(jobs) == [{"optim.weight_decay": "${optim.lr}"}, {"optim.weight_decay": "0.2"}]


def test_lists_are_values_and_choices_are_several():
    assert expand(["data.classes=[0,6],[1,2]"]) == [["data.classes=[0,6]"], ["data.classes=[1,2]"]]
    assert expand(["optim.lr=choice(0.1,0.2)"]) == [["optim.lr=0.1"], ["optim.lr=0.2"]]
    with pytest.raises(ConfigError, match="interval"):
        expand(["optim.lr=interval(0,1)"])


@pytest.mark.parametrize(
    ("overrides", "jobs", "expected"),
    [
        ([], 12, [Slot(1)] * 8),
        ([], 3, [Slot(2)] * 3),
        (["device.threads=3"], 12, [Slot(3)] * 2),
        (["device.threads=16"], 12, [Slot(16)]),
        (["sweep.jobs=2"], 12, [Slot(4)] * 2),
        (["sweep.jobs=20", "device.threads=1"], 12, [Slot(1)] * 12),
        (["device=mps"], 4, [Slot()]),
    ],
)
def test_every_core_has_a_job_and_none_has_two(overrides, jobs, expected, monkeypatch):
    monkeypatch.setattr(slots_of, "available_cores", lambda: 8)
    monkeypatch.setattr(slots_of, "_free_memory", lambda: 2**40)
    monkeypatch.setattr(slots_of, "visible_gpus", list)
    assert slots([compose(overrides).config] * jobs) == expected


def test_the_job_with_the_most_threads_tells_how_many_fit(monkeypatch):
    monkeypatch.setattr(slots_of, "available_cores", lambda: 8)
    monkeypatch.setattr(slots_of, "_free_memory", lambda: 2**40)
    configs = [compose([f"device.threads={threads}", "device=cpu"]).config for threads in (1, 4, 2)]
    assert len(slots(configs)) == 2
    composition = compose(["device.threads=3"])
    assert _job.fitted(composition, Slot(4)).config.device.threads == 3
    assert _job.fitted(compose([]), Slot(4)).config.device.threads == 4


def test_little_memory_is_room_for_few_jobs(monkeypatch):
    monkeypatch.setattr(slots_of, "available_cores", lambda: 8)
    monkeypatch.setattr(slots_of, "_free_memory", lambda: 5 * 2**30)
    assert len(slots([compose(["device=cpu"]).config] * 12)) == 2


def test_a_gpu_has_one_job_or_as_many_as_are_wanted(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: some'; echo 'GPU 1: other'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == [("0",), ("1",)]
    assert gpus("sweep.jobs_per_gpu=2") == [("0",), ("1",), ("0",), ("1",)]
    assert gpus("sweep.jobs=1") == [("0",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,GPU-abc")
    assert gpus("device=cuda") == [("7",), ("GPU-abc",)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert set(gpus()) == {()}


def gpus(*words: str) -> list[tuple[str, ...]]:
    return [slot.gpus for slot in slots([compose([*words, "device.threads=1"]).config] * 9)]


def test_jobs_end_in_any_way_and_none_touches_another(tmp_path):
    ways = {"return": 0, "raise": 1, "exit": 3, "kill": -9, "hang": 143, "deaf": -9}
    launcher = Launcher(end, [Slot()] * 3, errors=tmp_path.joinpath, timeout=5, grace_seconds=0.1)
    found = dict(launcher.run(ways))
    assert {job: outcome.code for job, outcome in found.items()} == ways
    words = {job: outcome.words for job, outcome in found.items()}
    assert words["raise"] == "ValueError: on purpose"
    assert words["exit"] == "exit code 3"
    assert "killed by SIGKILL" in words["kill"]
    assert [path.name for path in tmp_path.iterdir()] == ["raise"]
    assert "ValueError: on purpose" in (tmp_path / "raise").read_text()
    assert words["hang"] == words["deaf"] == "timeout: no end within 5 s"


def computing(started: float, slot: Slot) -> int:
    """Seconds to the start, in tenths; fails without the data that the server holds, or hangs with its threads."""
    late = time.monotonic() - started
    assert idx_file.held, "the server holds the data"
    torch.set_num_threads(2)
    torch.randn(500, 500) @ torch.randn(500, 500)
    return min(250, int(10 * late))


def test_a_job_of_two_threads_starts_at_once_from_a_server_that_holds_the_data(tmp_path):
    for part in ("train", "t10k"):
        tmp_path.joinpath(f"{part}-images-idx3-ubyte").write_bytes(encode(torch.zeros(9, 28, 28).byte().numpy()))
        tmp_path.joinpath(f"{part}-labels-idx1-ubyte").write_bytes(encode(torch.zeros(9).byte().numpy()))
    script = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sweep import computing
from dltrain.config.compose import compose
from dltrain.sweep.launcher import Launcher
from dltrain.sweep.slots import Slot
from dltrain.verbs._job import preloaded
with preloaded([compose(["data=idx", "data.root={tmp_path}"])]) as modules:
    launcher = Launcher(computing, [Slot()], errors=lambda job: Path({str(tmp_path)!r}) / str(job), preload=modules)
outcomes = [outcome for _, outcome in launcher.run(time.monotonic() for _ in range(6))]
print(json.dumps([[outcome.code, outcome.message] for outcome in outcomes]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tenths, messages = zip(*json.loads(done.stdout), strict=True)
    assert set(messages) == {""}
    assert tenths[0] < 250, "the server has imported torch within 25 s"
    assert sorted(tenths[1:])[2] < 10, "the others have begun within a second"


def troubled(request: _job.Request, slot: Slot) -> int:
    """Some jobs of a sweep in trouble, by their seed."""
    seed = request.composition.config.seed
    if seed in (1, 2, 3, 4):
        return end({1: "raise", 2: "exit", 3: "kill", 4: "hang"}[seed], slot)
    if seed == 5:
        words = ["optim=sgd", "optim.lr=1e38", *LITTLE, *FEW]
        request = _job.Request(request.number, request.folder, compose(words))
    return _job.run_job(request, slot)


def test_a_dozen_jobs_of_which_five_are_in_trouble(monkeypatch, capsys):
    monkeypatch.setattr(_sweep, "run_job", troubled)
    code, lines = sweep(ONE_THREAD, "seed=range(12)", "sweep.timeout=20", "sweep.keep=all", "trainer.grace_seconds=1")
    assert code == 3
    status = {int(line["seed"]): line["status"] for line in lines}
    assert status == {
        **dict.fromkeys((1, 2, 3, 4), "failed"),
        5: "diverged",
        **dict.fromkeys((0, 6, 7, 8, 9, 10, 11), "completed"),
    }
    cause = {int(line["seed"]): line["cause"] for line in lines}
    assert cause[1] == "ValueError: on purpose"
    assert cause[2] == "exit code 3"
    assert "SIGKILL" in cause[3]
    assert cause[4] == "timeout: no end within 20 s"
    assert "not finite" in cause[5]
    assert all(line["val_accuracy"] for line in lines if line["status"] == "completed")
    shown = capsys.readouterr().out
    assert "see outputs/sweeps/sweep/1.err" in shown
    assert re_find(shown, "ValueError: on purpose") < re_find(shown, "Ranked by"), "a failure is shown at once"
    for seed in (0, 6, 7, 8, 9, 10, 11):
        assert main([*LITTLE, *FEW, ONE_THREAD, f"seed={seed}", f"name=s{seed}"]) == 0
        single = summary(Path(f"outputs/runs/s{seed}"))
        assert summary(FOLDER / str(seed))["weights_sha256"] == single["weights_sha256"]


def re_find(text: str, part: str) -> int:
    assert part in text
    return text.index(part)


def test_a_two_by_two_sweep_runs_ranks_and_draws(capsys):
    code, lines = sweep("model=mlp,lenet", "optim=sgd,adam")
    assert code == 0
    assert {path.name for path in FOLDER.iterdir()} == {
        *"0123", "sweep.jsonl", "sweep.csv", "sweep.png", "sweep.svg", "report.html", ".lock",
    }  # fmt: skip
    accuracies = [float(line["val_accuracy"]) for line in lines]
    assert accuracies == sorted(accuracies, reverse=True)
    for line in lines:
        assert float(line["val_accuracy"]) == summary(FOLDER / line["job"])["best"]["value"]
    shown = capsys.readouterr().out
    assert "Ranked by val accuracy" in shown
    assert "one seed proves little" in shown


def test_a_job_whose_configuration_is_refused_is_one_failed_job(capsys):
    code, lines = sweep("data.batch_size=16,100000,8", "optim.lr=0.1,-1")
    assert code == 3
    assert [line["status"] for line in lines].count("completed") == 2
    assert not (FOLDER / "2").exists(), "a refused job leaves nothing"
    shown = capsys.readouterr().out
    assert "100000" in shown
    assert "optim.lr=-1: must be above 0" in shown


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model=mlp,resnet19"], 78, "resnet19"),
        (["seed=1,2", "optim.momentun=0.9"], 78, "momentun"),
        (["name=a,b"], 78, "name=a,b: that is one for all jobs of a sweep"),
        (["seed=1,2", "sweep.jobs=1,2"], 78, "that is one for all jobs"),
        (["model=glob(m*)"], 78, "glob is not offered"),
        (["seed=range(0)"], 78, "one of the ranges is empty"),
        (["optim.lr=-1,-2"], 78, "optim.lr=-1: must be above 0"),
        (["optim.lr=interval(0,1)"], 78, "hydra/sweeper=optuna"),
        (["seed=1,2", "hydra/launcher=kubernetes"], 78, "sweep.launcher=kubernetes: must be one of local"),
        (["seed=1,2", "hydra.sweeper.n_jobs=2"], 78, "Hydra's own settings are not offered"),
        (["seed=1,2", "sweep.resume=nowhere"], 78, "nowhere is no sweep"),
    ],
)
def test_what_is_wrong_with_all_is_refused_before_anything_starts(words, code, message, capsys):
    assert main(["-m", *LITTLE, *FEW, *words]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not Path("outputs").exists()


def test_runs_tells_of_jobs_what_the_sweep_told(capsys):
    assert sweep("trainer.epochs=1,null")[0] == 3
    capsys.readouterr()
    assert main(["runs", "status==failed"]) == 0
    assert "sweep/1" in capsys.readouterr().out


def test_flags_may_stand_anywhere():
    assert main([*LITTLE, *FEW, "optim.lr=0.1", "--multirun", "seed=1,2", "name=sweep"]) == 0
    assert len(events("end")) == 2


def test_the_same_sweep_once_more_runs_what_is_new_and_nothing_twice(capsys, swept):
    stamp = (FOLDER / "0/summary.json").stat().st_mtime_ns
    assert sweep("seed=1,2")[0] == 0
    assert "there is nothing left to run" in capsys.readouterr().out
    assert main(["resume", "sweep", "sweep.jobs=1"]) == 0
    code = main(["-m", *LITTLE, *FEW, "seed=2,3,3", f"sweep.resume={FOLDER}"])
    assert code == 0
    assert (FOLDER / "0/summary.json").stat().st_mtime_ns == stamp
    assert [(event["job"], event["attempt"]) for event in events("start")] == [(0, 1), (1, 1), (2, 1)]
    assert summary(FOLDER / "2")["status"] == "completed"
    assert main(["resume", "sweep", "optim.lr=0.1"]) == 78


def test_a_sweep_whose_defaults_have_changed_since_runs_no_finished_job_again(monkeypatch, swept):
    monkeypatch.setattr(_sweep_start, "job_key", lambda composition: f"another {_job.job_key(composition)}")
    assert main(["resume", "sweep"]) == 0
    assert len(events("start")) == len(events("job")) == 2


def test_resuming_runs_the_jobs_of_every_grid_with_the_threads_that_they_began_with():
    words = ("trainer.epochs=40", "trainer.checkpoint_every=1000 epochs")
    for seeds in ("seed=1,2", "seed=3,4"):
        process = subprocess.Popen([word for word in command(*words, seeds) if word != ONE_THREAD], stdout=-3)
        while not (FOLDER / ("1" if seeds == "seed=1,2" else "3") / "metrics.jsonl").exists():
            time.sleep(0.01)
        process.kill()
        process.wait()
    threads = [summary_threads(job) for job in "0123" if (FOLDER / job).exists()]
    assert main(["resume", "sweep"]) == 0
    assert [summary(FOLDER / job)["status"] for job in "0123"] == ["completed"] * 4
    assert [summary_threads(job) for job in "0123"][: len(threads)] == threads


def summary_threads(job: str) -> str:
    return next(line for line in (FOLDER / job / "config.yaml").read_text().splitlines() if "threads:" in line)


def test_a_completed_job_whose_folder_is_gone_runs_again(swept, capsys):
    shutil.rmtree(FOLDER / "0")
    assert main(["resume", "sweep"]) == 0
    shown = capsys.readouterr().out
    assert "1 done, 1 to run" in shown
    assert "2/2  seed=1  completed" in shown
    assert summary(FOLDER / "0")["status"] == "completed"


def test_the_server_killed_ends_its_jobs_and_they_go_on_later():
    words = ("trainer.epochs=100", "seed=1,2", "trainer.checkpoint_every=1000 epochs")
    process = subprocess.Popen(command(*words), stdout=-3)
    while not all((FOLDER / job / "metrics.jsonl").exists() and rows(FOLDER / job) for job in "01"):
        time.sleep(0.01)
    jobs = [json.loads((FOLDER / job / ".lock").read_text())["pid"] for job in "01"]
    server = int(Path(f"/proc/{jobs[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    assert process.wait(timeout=120) in (0, 3)
    assert not any(Path(f"/proc/{pid}").exists() for pid in jobs)
    assert {event["status"] for event in events("end")} <= {"interrupted", "completed"}
    assert main(["resume", "sweep"]) == 0
    assert summary(FOLDER / "1")["bit_exact"] is True


def test_a_job_that_is_deaf_ends_after_its_sweep_was_killed(tmp_path):
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dltrain.sweep import launcher
from troubles import tell
launcher.KILL_AFTER_SECONDS = 0.2
jobs = launcher.Launcher(tell, [launcher.Slot()], errors=Path({str(tmp_path)!r}).joinpath, grace_seconds=0.2)
list(jobs.run([{str(tmp_path / "pid")!r}]))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    job = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    until = time.monotonic() + 15
    while Path(f"/proc/{job}").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_long_message_of_a_failure_holds_nothing_up(tmp_path):
    launcher = Launcher(end, [Slot()], errors=tmp_path.joinpath)
    [(_, outcome)] = launcher.run(["long"])
    assert len(outcome.words) == 4000


def test_a_sweep_that_is_extended_by_a_key_labels_its_first_jobs_with_their_values(capsys, swept):
    code = main(["-m", *LITTLE, *FEW, "seed=1,2", "optim.lr=0.1", "optim=sgd,adam", f"sweep.resume={FOLDER}"])
    assert code == 0
    with (FOLDER / "sweep.csv").open() as file:
        lines = [(line["optim"], line["optim.lr"], line["seed"]) for line in csv.DictReader(file)]
    rates = {("adam", "0.001"), ("sgd", "0.1"), ("adam", "0.1")}
    assert sorted(lines) == sorted((*rate, seed) for rate in rates for seed in "12")
    shown = capsys.readouterr().out
    assert "completed" in shown
    assert " all  completed" not in shown


def test_a_job_killed_before_it_dropped_its_optimizers_state_does_so_when_the_sweep_resumes():
    assert sweep("seed=1", "sweep.keep=all")[0] == 0
    lines = (FOLDER / "sweep.jsonl").read_text().splitlines(keepends=True)
    (FOLDER / "sweep.jsonl").write_text("".join(line for line in lines if '"event": "end"' not in line))
    assert list(FOLDER.glob("0/checkpoints/*/optim.safetensors"))
    assert main(["resume", "sweep", "sweep.keep=weights"]) == 0
    assert not list(FOLDER.glob("0/checkpoints/*/optim.safetensors"))
    assert len(events("start")) == 1, "nothing was trained"


def test_a_folder_that_is_no_sweep_is_refused(capsys):
    Path("outputs/sweeps/sweep").mkdir(parents=True)
    assert main(["-m", *LITTLE, *FEW, "seed=1,2", "name=sweep"]) == 78
    assert "is no sweep" in capsys.readouterr().err


def test_a_sweep_has_one_writer(swept):
    with Lock() as lock:
        lock.take(FOLDER)
        assert main(["resume", "sweep"]) == 73


def test_completed_jobs_keep_weights_alone_unless_all_is_wanted(capsys):
    assert sweep("seed=1", "trainer.checkpoint_every=4 steps")[0] == 0
    files = {path.name for path in FOLDER.glob("0/checkpoints/step-*/*")}
    assert files == {"model.safetensors", "state.json", "manifest.json"}
    assert main(["resume", "sweep/0", "trainer.epochs=2"]) == 66
    assert "holds weights alone" in capsys.readouterr().err
    assert summary(FOLDER / "0")["status"] == "completed"
    from dltrain import load

    assert load(FOLDER / "0").predict(torch.zeros(1, 28, 28).byte()).shape == (1, 10)
    assert main(["-m", *LITTLE, *FEW, "seed=1", "name=other", "sweep.keep=all"]) == 0
    assert main(["resume", "other/0", "trainer.epochs=2"]) == 0


def test_the_parent_killed_at_random_instants_loses_nothing_and_runs_nothing_twice():
    words = ("seed=range(6)", "trainer.epochs=3", "trainer.checkpoint_every=3 steps", "sweep.keep=all")
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"KILL_SEED={seed}")
    draw = random.Random(seed)
    for _ in range(5):
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(1.0, 4.0))
        process.kill()
        process.wait()
    done = subprocess.run(command(*words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = [event["job"] for event in events("end") if event["status"] == "completed"]
    assert sorted(ends) == list(range(6))
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_dir()) == list("012345")
    for job in (0, 5):
        assert main([*LITTLE, *FEW, ONE_THREAD, *words[1:-1], f"seed={job}", f"name=single{job}"]) == 0
        single = Path(f"outputs/runs/single{job}")
        assert summary(FOLDER / str(job))["weights_sha256"] == summary(single)["weights_sha256"]
        assert [row["loss"] for row in rows(FOLDER / str(job))] == [row["loss"] for row in rows(single)]


def test_a_ledger_outlives_a_torn_line_and_names_damage(tmp_path):
    ledger = Ledger.create(tmp_path, {"words": []})
    job = ledger.add("key", ["seed=1"])
    ledger.start(job)
    with (tmp_path / "sweep.jsonl").open("a") as file:
        file.write('{"event": "end", "jo')
    again = Ledger.read(tmp_path)
    assert [(each.status, each.attempts, each.finished) for each in again.jobs] == [("interrupted", 1, False)]
    again.end(again.jobs[0], status="completed", code=0, cause="")
    assert Ledger.read(tmp_path).jobs[0].finished
    (tmp_path / "sweep.jsonl").write_text('{"event": "job"}\n')
    with pytest.raises(RunError, match="damaged"):
        Ledger.read(tmp_path)
    (tmp_path / "sweep.jsonl").write_text("")
    with pytest.raises(RunError, match="does not say what was to be run"):
        Ledger.read(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_to_all_ends_a_sweep_saving_each_job_and_it_goes_on_later(number, code):
    """As `timeout` asks a process and its group, a terminal the group, and systemd every process."""
    long = ("trainer.epochs=500", "seed=1,2,3", "sweep.jobs=2")
    process = subprocess.Popen(command(*long), stdout=subprocess.PIPE, text=True, start_new_session=True)
    while not all((FOLDER / job / "metrics.jsonl").exists() and rows(FOLDER / job) for job in "01"):
        time.sleep(0.01)
    jobs = [json.loads((FOLDER / job / ".lock").read_text())["pid"] for job in "01"]
    process.send_signal(number)
    time.sleep(0.05)
    os.killpg(process.pid, number)
    for job in jobs:
        os.kill(job, number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert {event["status"] for event in events("end")} == {"interrupted"}
    assert "table    outputs/sweeps/sweep/sweep.csv" in out
    assert (FOLDER / "sweep.csv").read_text().count("interrupted") in (2, 3)
    assert not (FOLDER / "2").exists()
    for job in "01":
        assert summary(FOLDER / job)["status"] == "interrupted"
        assert list((FOLDER / job / "checkpoints").glob("step-*"))


def test_a_signal_while_the_server_still_imports_is_heard_and_the_sweep_goes_on_later(tmp_path):
    slow = 'import sys, time\nif "forkserver" in " ".join(sys.orig_argv):\n    time.sleep(3)\n'
    (tmp_path / "sitecustomize.py").write_text(slow)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    how = {"env": {**os.environ, "PYTHONPATH": path}, "start_new_session": True}
    process = subprocess.Popen(command("seed=1", "trainer.epochs=100"), stdout=-1, stderr=-1, text=True, **how)
    assert "1 to run in" in process.stdout.readline()
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "")
    assert "to go on: dltrain resume outputs/sweeps/sweep" in out
    assert main(["resume", "sweep"]) == 0
