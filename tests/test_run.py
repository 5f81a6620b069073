"""The run folder and its record, when a run saves, and the signals that stop it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from dltrain.run import checkpoint, signals
from dltrain.run.console import Console
from dltrain.run.environment import MOST_DIFF, environment, git_state, process_age
from dltrain.run.folder import RunError, WriteError, create, default_name, find, write_json
from dltrain.run.lock import Lock
from dltrain.run.record import Record, read_rows
from dltrain.run.saver import Saver
from dltrain.run.signals import Interrupted, signalled, stoppable

LOADED = time.monotonic()


def fill(folder: Path) -> None:
    (folder / "config.yaml").write_text("seed: 0\n")


def refuse(*arguments: object, **keywords: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_folder_comes_whole_with_what_fills_it(tmp_path: Path) -> None:
    folder = create(tmp_path / "new" / "runs", "mine", fill, numbered=False)
    assert folder == tmp_path / "new" / "runs" / "mine"
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_folder_is_not_seen_before_it_is_whole(tmp_path: Path) -> None:
    seen = []
    create(tmp_path, "mine", lambda folder: seen.append((tmp_path / "mine").exists()) or fill(folder), numbered=False)
    assert seen == [False]


def test_a_taken_name_is_numbered_or_refused(tmp_path: Path) -> None:
    names = [create(tmp_path, "mine", fill, numbered=True).name for _ in range(3)]
    assert names == ["mine", "mine-2", "mine-3"]
    with pytest.raises(FileExistsError, match="mine"):
        create(tmp_path, "mine", fill, numbered=False)
    assert len(list(tmp_path.iterdir())) == 3


def test_runs_that_start_at_once_share_no_folder(tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def sign(folder: Path) -> None:
        (folder / "owner").write_text(str(threading.get_ident()))
        start.wait(timeout=30)

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(create, tmp_path, "same", sign, numbered=True) for _ in range(8)]
        folders = {job.result() for job in jobs}
    assert len(folders) == 8
    assert len({(folder / "owner").read_text() for folder in folders}) == len(set(tmp_path.iterdir())) == 8


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_what_fails_to_fill_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        create(tmp_path, "mine", fail, numbered=True)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_filling_is_worded_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=f"cannot write {tmp_path}: No space left on device"):
        create(tmp_path, "mine", fail, numbered=True)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_outputs_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(WriteError, match=str(tmp_path / "outputs")) as caught:
        create(tmp_path / "outputs" / "runs", "mine", fill, numbered=True)
    assert caught.value.exit_code == 74


def test_a_file_that_has_the_name_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a file")
    assert create(tmp_path, "mine", fill, numbered=True).name == "mine-2"


def test_outputs_without_the_right_to_write_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(WriteError, match=f"cannot write {tmp_path}: Permission denied"):
        create(tmp_path, "mine", fill, numbered=True)


def test_a_rename_that_is_refused_is_worded_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WriteError, match=f"cannot write {tmp_path / 'mine'}: Permission denied"):
        create(tmp_path, "mine", fill, numbered=True)
    assert not list(tmp_path.iterdir())


def test_a_default_name_says_when_and_what() -> None:
    stamp, model, optim = default_name("lenet", "adam").rsplit("-", 2)
    assert (model, optim) == ("lenet", "adam")
    assert time.strptime(stamp, "%Y%m%d-%H%M%S")


def test_runs_are_found_by_path_and_by_name() -> None:
    run = create(Path("out/runs"), "mine", fill, numbered=False)
    job = create(Path("out/sweeps/grid"), "0", fill, numbered=False)
    assert find("mine", "out") == find(run) == run
    assert find("grid/0", "out") == job
    with pytest.raises(RunError, match="'yours': neither a run folder nor a name below out/runs") as caught:
        find("yours", "out")
    assert caught.value.exit_code == 78
    assert RunError("damaged").exit_code == 66


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"step": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"step": 2, "loss": float("nan")})
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(WriteError, match=f"cannot write {path}: Permission denied"):
        write_json(path, {"step": 3})
    assert json.loads(path.read_text()) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_row_is_on_disk_when_it_is_added(tmp_path: Path) -> None:
    record = Record(tmp_path)
    written = [{"split": "train", "step": step, "loss": 0.1 + 0.2, "note": "naïve\n\u2028"} for step in range(3)]
    for count, row in enumerate(written, start=1):
        record.add(row)
        assert read_rows(tmp_path) == written[:count]
    with pytest.raises(ValueError, match="JSON"):
        record.add({"loss": float("nan")})
    record.close()
    assert read_rows(tmp_path) == written


def test_a_record_that_a_kill_cut_short_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')
    assert read_rows(tmp_path) == [{"step": 1}, {"step": 2}]
    record = Record(tmp_path)
    record.add({"step": 3})
    record.close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_a_folder_without_a_record_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"metrics\.jsonl"):
        Record(tmp_path / "missing")


class Clock:
    """A clock that tests set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def saver(folder: Path, every: str, *, keep: int = 2) -> tuple[Saver, Clock]:
    clock = Clock()
    return Saver(folder, every=every, keep=keep, clock=clock), clock


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        ("3 steps", [3, 6, 9, 12]),
        ("1 step", list(range(1, 13))),
        ("1 epoch", [4, 8, 12]),
        ("2 epochs", [8]),
        ("auto", [4, 8, 12]),
    ],
)
def test_an_interval_comes_round(tmp_path: Path, every: str, expected: list[int]) -> None:
    asked, clock = saver(tmp_path, every)
    due = []
    for step in range(1, 13):
        clock.now += 1
        if asked.due(step=step, epoch=step / 4):
            due.append(step)
    assert due == expected


def test_minutes_count_from_the_last_checkpoint(tmp_path: Path) -> None:
    asked, clock = saver(tmp_path, "2 minutes")
    clock.now += 119
    assert not asked.due(step=1, epoch=0.1)
    clock.now += 1
    assert asked.due(step=2, epoch=0.2)
    asked.save(2, {"model": WEIGHTS}, {"best": None})
    clock.now += 119
    assert not asked.due(step=3, epoch=0.3)


WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3)}


def test_auto_saves_while_that_costs_less_than_a_twentieth_of_the_time(tmp_path: Path, monkeypatch) -> None:
    asked, clock = saver(tmp_path, "auto")
    save = checkpoint.save

    def slow(*arguments):
        clock.now += 10
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", slow)
    clock.now += 1
    assert asked.due(step=1, epoch=1.0)
    asked.save(1, {"model": WEIGHTS}, {"best": None})
    clock.now = 100 + 399.0
    assert not asked.due(step=2, epoch=2.0)
    clock.now = 100 + 401.0
    assert not asked.due(step=2, epoch=1.5)
    assert asked.due(step=2, epoch=2.0)
    asked.save_best(2, WEIGHTS, {})
    assert not asked.due(step=3, epoch=3.0)


def test_the_newest_are_kept_and_the_best_is_protected(tmp_path: Path) -> None:
    asked, _ = saver(tmp_path, "1 epoch")
    asked.save_best(1, WEIGHTS, {})
    for step in (2, 3, 4):
        asked.save(step, {"model": WEIGHTS, "optim": {}}, {"step": step, "best": {"step": 1}})
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-00000001", "step-00000003", "step-00000004", "latest", "best"}
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000004\n"
    assert (tmp_path / "checkpoints" / "best").read_text() == "step-00000001\n"
    asked.save(5, {"model": WEIGHTS, "optim": {}}, {"best": {"step": 3}})
    # The older one of the two that are kept has a best of its own, without which nobody could go on from it.
    assert [checkpoint.number(path) for path in checkpoint.steps(tmp_path / "checkpoints")] == [1, 3, 4, 5]


def test_some_are_kept_for_good_and_those_that_do_not_verify_do_not_count(tmp_path: Path) -> None:
    def save(asked: Saver, *steps: int) -> list[int]:
        for step in steps:
            asked.save(step, {"model": WEIGHTS, "optim": {}}, {"best": None, "saves": step})
        return [checkpoint.number(path) for path in checkpoint.steps(tmp_path / "checkpoints")]

    every = {"every": "1 step", "keep": 2, "keep_every": 3}
    assert save(Saver(tmp_path, **every), *range(1, 9)) == [3, 6, 7, 8]
    (tmp_path / "checkpoints" / "step-00000008" / "state.json").write_text("{}")
    assert save(Saver(tmp_path, **every), 9) == [3, 6, 7, 9]


def test_beginning_from_a_step_forgets_later_ones(tmp_path: Path) -> None:
    asked, _ = saver(tmp_path, "1 step", keep=5)
    for step in (1, 2, 3):
        asked.save(step, {"model": WEIGHTS, "optim": {}}, {"best": None})
    again, _ = saver(tmp_path, "1 step")
    again.forget_after(2)
    assert [checkpoint.number(path) for path in checkpoint.steps(tmp_path / "checkpoints")] == [1, 2]
    again.forget_after(-1)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)],
    ids=["INT", "TERM", "USR1"],
)
def test_the_first_signal_asks_and_the_second_leaves(number: signal.Signals, code: int, monkeypatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(signals, "leave", left.append)
    received: list[int] = []
    with signalled(received, grace_seconds=60):
        os.kill(os.getpid(), number)
        assert (received, left) == ([code], [])
        os.kill(os.getpid(), number)
        assert left == [code]


def test_the_end_of_the_grace_leaves(monkeypatch) -> None:
    left = threading.Event()
    monkeypatch.setattr(signals, "leave", lambda code: left.set())
    with signalled([], grace_seconds=0.01):
        assert not left.wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        assert left.wait(30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_before_a_run_has_begun_a_signal_ends_the_command(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as interrupted, stoppable():
        os.kill(os.getpid(), number)
    assert interrupted.value.exit_code == 143


def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with Lock() as first:
        first.take(tmp_path)
        with (
            pytest.raises(RunError, match=f"in use by process {os.getpid()} on .* since 20") as refused,
            Lock() as second,
        ):
            second.take(tmp_path)
        assert refused.value.exit_code == 73
    with Lock() as third:
        third.take(tmp_path)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with Lock() as lock:
        lock.take(tmp_path)
        child = os.fork()
        if child == 0:
            os.write(writer, b"forked")
            time.sleep(30)
            os._exit(0)
        os.read(reader, 6)
    try:
        with Lock() as again:
            again.take(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_handlers_are_put_back_without_a_signal() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with signalled([], grace_seconds=20):
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_the_age_of_a_process_counts_from_its_start() -> None:
    before = time.monotonic()
    code = "from dltrain.run.environment import process_age; print(process_age())"
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 0 < age < time.monotonic() - before + 0.1
    assert time.monotonic() - LOADED - 0.1 < process_age() < 24 * 3600


def test_the_environment_names_versions_command_and_commit() -> None:
    found = environment(device="a CPU")
    assert found["device"] == "a CPU"
    assert found["packages"]["torch"] == version("torch")
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["command"] == sys.argv
    json.dumps(found)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_git_state_is_the_commit_and_what_differs_from_it(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    (tmp_path / "file").write_text("one")
    identity = ["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    clean = git_state(tmp_path)
    assert clean is not None
    assert clean["changed"] == []
    assert len(clean["commit"]) == 40
    (tmp_path / "file").write_text("two")
    (tmp_path / "new").write_text("three")
    dirty = git_state(tmp_path)
    assert dirty is not None
    assert dirty["changed"] == ["file", "new"]
    assert all(line in dirty["diff"] for line in ("-one", "+two", "+++ b/new", "+three"))
    (tmp_path / "new").write_text("x" * MOST_DIFF)
    cut = git_state(tmp_path)
    assert cut is not None
    assert cut["diff"].endswith("characters in all]\n")
    assert cut["diff_sha256"] != dirty["diff_sha256"]


def test_a_step_that_is_not_plainly_eager_is_said_at_the_end(tmp_path, capsys):
    why = "eager, because the step could not be recorded: no"
    result = {"status": "completed", "best": None, "steps": 3, "seconds": 1.0, "device": "a GPU", "precision": "bf16"}
    result = {**result, "cause": None, "watched_test": False, "epochs": 1, "ranks": 1}
    speed = {"images_per_second": None, "seconds_to_first_step": None, "peak_memory_bytes": 1, "bottleneck": None}
    summary = {**result, **speed, "train": None, "val": None, "test": None, "execution": why}
    Console().results(summary, tmp_path)
    assert f"a GPU, bf16, {why}\n" in capsys.readouterr().out
    Console().results({**summary, "execution": "eager"}, tmp_path)
    assert "a GPU, bf16\n" in capsys.readouterr().out
