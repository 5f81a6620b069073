"""Signals, locks, full disks, divergence and scarce memory, each met by runs through the command."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from faults import RUN, outcome, run, send, start
from helpers import rows, summary, train

from dltrain.engine import Engine
from dltrain.run import checkpoint

COMMAND = (*RUN, "name=run")
FOLDER = Path("outputs/runs/run")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}
SHORT = ("model=mlp", "trainer.epochs=2", "trainer.log_every=2", "device.precision=fp32")


def said() -> str:
    return Path("terminal").read_text()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reference"))
        assert run(*COMMAND) == 0, said()
        return outcome(FOLDER.resolve())


def children(group: int) -> list[str]:
    """The processes of a group that are still there."""
    done = subprocess.run(["ps", "-o", "pid=,stat=", "-A", "-o", "pgid="], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.split()[-1] == str(group) and "Z" not in line.split()[1]]


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize(("point", "count"), [("step", 4), ("score", 2), ("score", 5), ("save: tensors", 2)])
def test_a_signal_to_the_group_saves_and_ends_the_run_and_its_workers(number, point, count, reference):
    streamed = (*COMMAND, "data.resident_limit=1", "data.workers=2")
    process = start(*streamed, point=point, count=count, action=partial(send, number))
    process.join(60)
    assert process.exitcode == CODES[number], said()
    assert summary(FOLDER)["status"] == "interrupted"
    assert children(process.pid) == []
    assert run(*streamed) == 0, said()
    assert outcome(FOLDER.resolve()) == reference


def test_a_signal_during_the_final_test_is_heard(reference):
    code = run(*COMMAND, point="score", count=6, action=partial(send, signal.SIGTERM))
    assert code == 143
    assert summary(FOLDER)["test"] is None
    assert run("resume", "run") == 0, said()
    assert outcome(FOLDER.resolve()) == reference


def test_a_hammer_of_signals_leaves_a_run_that_goes_on(reference):
    draw = random.Random(0)
    for _ in range(3):
        process = start(*COMMAND)
        process.join(draw.uniform(0.3, 1.0))
        for _ in range(50):
            if process.exitcode is None:
                os.kill(process.pid, draw.choice([*CODES]))
            time.sleep(0.002)
        process.join(30)
        assert process.exitcode in (0, 130, 143, *(-number for number in CODES)), said()
    assert run(*COMMAND) == 0, said()
    assert outcome(FOLDER.resolve()) == reference


def test_a_second_signal_leaves_at_once():
    assert run(*COMMAND, point="step", count=5, action=partial(send, signal.SIGTERM, signal.SIGTERM)) == 143
    assert not (FOLDER / "summary.json").exists()


def test_a_run_has_one_writer_and_the_other_is_told_which(reference):
    first = start(*COMMAND, point="step", count=3, action=partial(time.sleep, 3))
    while not (FOLDER / "metrics.jsonl").exists():
        time.sleep(0.01)
    assert run("resume", "run") == 73
    assert f"in use by process {first.pid} on" in said()
    first.join()
    assert outcome(FOLDER.resolve()) == reference


def test_eight_runs_started_at_once_have_eight_folders():
    short = (*RUN, "trainer.epochs=1", "trainer.limit_train_batches=1")
    processes = [start(*short) for _ in range(8)]
    for process in processes:
        process.join()
        assert process.exitcode == 0, said()
    folders = list(Path("outputs/runs").iterdir())
    assert len([folder for folder in folders if summary(folder)["status"] == "completed"]) == len(folders) == 8


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB of its own; where mounting is not allowed, the one of a process with its own mounts."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode == 0:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
        return
    script = 'mount -t tmpfs -o size=4m,mode=755 tmpfs "$0" && echo mounted && exec cat'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
        yield Path(f"/proc/{holder.pid}/root") / disk.relative_to("/")
        holder.stdin.close()


def fill(filler: Path) -> None:
    """Leave no free byte."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def small(disk: Path) -> tuple[str, ...]:
    """A run whose checkpoints take a tenth of the small disk."""
    return (*COMMAND, "model.hidden_sizes=[16]", "trainer.keep=2", "trainer.max_save_failures=9", f"outputs_dir={disk}")


def test_a_run_outlasts_a_full_disk(small_disk, tmp_path):
    assert run(*small(tmp_path)) == 0, said()
    filler = small_disk / "filler"
    # Full from the fifth step to the end, where the run cannot be saved.
    assert run(*small(small_disk), point="step", count=5, action=partial(fill, filler)) == 74
    assert re.search(
        r"note: cannot write .*step-0000000\d: No space left on device \([\d,]+ bytes needed, [\d,]+ bytes free\)",
        said(),
    )
    assert "training goes on" in said()
    folder = small_disk / "runs/run"
    assert all(checkpoint.is_sound(path) for path in checkpoint.steps(folder / "checkpoints"))
    filler.unlink()
    assert run(*small(small_disk)) == 0, said()
    assert outcome(folder) == outcome(tmp_path / "runs/run")


def test_a_disk_that_has_room_again_gets_all_that_waited(small_disk, tmp_path):
    assert run(*small(tmp_path)) == 0, said()
    filler = small_disk / "filler"
    code = run(*small(small_disk), point="step", count=5, action=partial(full_for_a_while, filler))
    assert code == 0, said()
    assert "training goes on" in said()
    assert outcome(small_disk / "runs/run") == outcome(tmp_path / "runs/run")


def full_for_a_while(filler: Path) -> None:
    """Fill the disk, and make room when three more steps were taken."""
    fill(filler)
    step, left = Engine.step, [4]

    def counted(*arguments: object) -> None:
        step(*arguments)
        left[0] -= 1
        if left[0] == 0:
            filler.unlink()

    Engine.step = counted


def be_read_only(folder: Path) -> None:
    """Let nobody make a file in a folder, not even root."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)


def test_a_run_outlasts_a_folder_that_became_read_only(reference):
    if os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("root may not mount anything here, and nothing else keeps it from writing")
    checkpoints = FOLDER.resolve() / "checkpoints"
    patient = (*COMMAND, "trainer.max_save_failures=9")
    try:
        assert run(*patient, point="step", count=5, action=partial(be_read_only, checkpoints)) == 74
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", checkpoints], check=True)
        checkpoints.chmod(0o755)
    reason = "(Read-only file system|Permission denied)"
    assert re.search(
        rf"cannot write .*step-0000000\d: {reason} \([\d,]+ bytes needed, [\d,]+ bytes free\); train", said()
    )
    assert [path.name for path in checkpoint.steps(checkpoints)] == ["step-00000002", "step-00000004"]
    assert run(*patient) == 0, said()
    assert outcome(FOLDER.resolve()) == reference


def test_too_many_failed_saves_end_a_run(reference):
    limited = (*COMMAND, "trainer.max_save_failures=2")
    small_files = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    assert run(*limited, point="step", count=5, action=small_files) == 74
    assert said().count("training goes on, and saving") == 1
    assert run(*limited) == 0, said()
    assert outcome(FOLDER.resolve()) == reference


def poison(monkeypatch, when) -> None:
    """Images without a number, at steps of an engine for which `when` holds."""
    step = Engine.step

    def poisoned(engine, batch, number):
        images, labels = batch
        step(engine, (images * torch.nan, labels) if when(engine, number) else batch, number)

    monkeypatch.setattr(Engine, "step", poisoned)


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_a_rate_that_is_too_high_ends_in_divergence(policy):
    folder = train(
        *SHORT, "optim=sgd", "optim.lr=1e38", f"trainer.on_divergence={policy}", "trainer.max_skipped=2", expected=65
    )
    result = summary(folder)
    assert (result["status"], result["exit_code"]) == ("diverged", 65)
    for path in checkpoint.steps(folder / "checkpoints"):
        tensors, _ = checkpoint.load(path)
        assert all(tensor.isfinite().all() for tensor in tensors["model"].values())
    assert result["rollbacks"] == (3 if policy == "rollback" else 0)


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_weights_that_an_update_made_infinite_are_never_saved(policy):
    words = [*SHORT, "optim=sgd", "optim.lr=1e39", f"trainer.on_divergence={policy}", "trainer.checkpoint_every=1 step"]
    folder = train(*words, expected=65)
    for path in checkpoint.steps(folder / "checkpoints"):
        tensors, _ = checkpoint.load(path)
        assert all(tensor.isfinite().all() for tensor in tensors["model"].values())
    one = train(*words, "trainer.epochs=1", "trainer.limit_train_batches=1", name="one", expected=65)
    assert summary(one)["status"] == "diverged"
    assert summary(one)["best"] is None


def test_a_signal_in_the_last_evaluation_before_an_early_stop_loses_no_row():
    words = (*COMMAND, "trainer.epochs=6", "trainer.watch_test=true", "trainer.early_stop=1", "optim.lr=0.3")
    assert run(*words) == 0, said()
    whole = outcome(FOLDER.resolve())
    evaluations = 5 * summary(FOLDER)["epochs"]  # one batch of validation and four of the test an epoch
    shutil.rmtree("outputs")
    assert run(*words, point="score", count=evaluations - 2, action=partial(send, signal.SIGTERM)) == 143
    assert run(*words) == 0, said()
    assert outcome(FOLDER.resolve()) == whole


@pytest.mark.parametrize("number", CODES)
def test_a_signal_at_any_time_of_the_start_gives_its_exit_code(number):
    for delay in (0.15, 0.3, 0.6, 0.9):
        process = subprocess.Popen([sys.executable, "-m", "dltrain", *RUN], stdout=-3, stderr=-1, text=True)
        time.sleep(delay)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (CODES[number], -number), error  # before Python has begun, it is the kernel's


def test_a_poisoned_batch_is_skipped_and_counted(monkeypatch):
    poison(monkeypatch, lambda engine, number: number in (3, 6))
    folder = train(*SHORT, "trainer.on_divergence=skip")
    assert summary(folder)["skipped_steps"] == 2
    assert summary(folder)["status"] == "completed"
    assert all(row["loss"] is not None for row in rows(folder))
    train(*SHORT, "trainer.on_divergence=skip", "trainer.max_skipped=1", name="less", expected=65)


def test_a_poisoned_batch_stops_a_run_that_goes_on_from_its_last_good_checkpoint(monkeypatch):
    whole = train(*SHORT, "trainer.checkpoint_every=1 step", name="whole")
    with monkeypatch.context() as patch:
        poison(patch, lambda engine, number: number == 7)
        folder = train(*SHORT, "trainer.checkpoint_every=1 step", expected=65)
        assert checkpoint.number(checkpoint.steps(folder / "checkpoints")[-1]) == 7
    train(*SHORT, "trainer.checkpoint_every=1 step")
    assert outcome(folder) == outcome(whole)


def test_rolling_back_goes_on_at_half_the_rate(monkeypatch, capsys):
    poison(monkeypatch, lambda engine, number: number == 7 and engine.initial_rates[0] > 0.0006)
    folder = train(*SHORT, "trainer.on_divergence=rollback")
    assert "was not finite: back to step 5, at 0.5 of the rate" in capsys.readouterr().out
    assert summary(folder)["rollbacks"] == 1
    assert [row["lr"] for row in rows(folder, "train")] == [0.001] * 3 + [0.0005] * 3
    assert [row["step"] for row in rows(folder, "train")] == [2, 4, 5, 6, 8, 10]


def poison_steps(*numbers: int) -> None:
    """As `poison`, for a process that ends with it: a rate that was halved bears it."""
    poison(pytest.MonkeyPatch(), lambda engine, number: number in numbers and engine.initial_rates[0] > 0.0006)


def little_memory() -> None:
    """As `scarce`, for a process that ends with it."""
    scarce(pytest.MonkeyPatch(), most=20)


TROUBLES = {
    "rollback": (partial(poison_steps, 7), "trainer.on_divergence=rollback", "rollbacks", 1),
    "skip": (partial(poison_steps, 3, 7), "trainer.on_divergence=skip", "skipped_steps", 2),
    "microbatch": (little_memory, "trainer.microbatch=auto", "microbatch", 16),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_kills_of_a_run_in_trouble_change_nothing(trouble):
    prepare, word, key, value = TROUBLES[trouble]
    assert run(*RUN, word, "name=whole", prepare=prepare) == 0, said()
    whole = FOLDER.resolve().with_name("whole")
    assert summary(whole)[key] == value
    for step in (5, 2, 3, 2, 6, 3):  # each counted from where the run goes on
        assert run(*COMMAND, word, prepare=prepare, point="step", count=step) == -signal.SIGKILL
    assert run(*COMMAND, word, prepare=prepare) == 0, said()
    assert outcome(FOLDER.resolve()) == outcome(whole)
    assert summary(FOLDER)[key] == value


def scarce(monkeypatch, *, most: int) -> None:
    """Memory for so many images at a time."""
    backward = Engine._backward

    def lacking(engine, batch):
        if min(engine.microbatch or len(batch[0]), len(batch[0])) > most:
            engine.model(batch[0])  # which moves batch norm's statistics, before
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more.")
        return backward(engine, batch)

    monkeypatch.setattr(Engine, "_backward", lacking)


def test_scarce_memory_is_told_with_what_fits(monkeypatch, capsys):
    scarce(monkeypatch, most=40)
    train(*SHORT, "model.norm=batch", expected=71)
    err = capsys.readouterr().err
    assert "out of memory: a step on 128 images of 1x32x32: CUDA out of memory. Tried to allocate 2.00 GiB" in err
    assert "32 at a time fit: trainer.microbatch=32" in err


def test_scarce_memory_splits_the_batch_where_that_is_wanted(monkeypatch, capsys):
    given = train(*SHORT, "model.norm=batch", "trainer.microbatch=32", name="given")
    scarce(monkeypatch, most=40)
    folder = train(*SHORT, "model.norm=batch", "trainer.microbatch=auto")
    assert "computed 32 images at a time from here on" in capsys.readouterr().out
    assert summary(folder)["microbatch"] == 32
    assert summary(folder)["weights_sha256"] == summary(given)["weights_sha256"]


def test_no_memory_for_a_single_image_is_said(monkeypatch, capsys):
    scarce(monkeypatch, most=0)
    train(*SHORT, "trainer.microbatch=auto", expected=71)
    assert "not even one image at a time fits" in capsys.readouterr().err
