"""Damaged checkpoints: every kind of damage is noticed, named, and survived by the next good one."""

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from faults import RUN, outcome
from helpers import summary

from dltrain.cli import main
from dltrain.run import checkpoint, recovery
from dltrain.run.folder import WriteError
from dltrain.run.record import Record, read_rows

FOLDER = Path("outputs/runs/run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with a few checkpoints, and its outcome."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        assert main([*RUN, "name=run", "model.hidden_sizes=[8]", "trainer.keep=3"]) == 0
        return FOLDER.resolve(), outcome(FOLDER.resolve())


@pytest.fixture
def damaged(trained):
    """A copy of the finished run, unfinished again, to damage."""
    shutil.copytree(trained[0], FOLDER)
    (FOLDER / "summary.json").unlink()
    return FOLDER


def newest_step(folder: Path) -> tuple[int, list[str]]:
    point, passed_over = recovery.newest(folder)
    return point[1]["step"], passed_over


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_is_noticed_and_the_next_good_checkpoint_serves(damaged):
    draw = random.Random(0)
    newest, second = reversed(checkpoint.steps(damaged / "checkpoints")[-2:])
    files = sorted(newest.iterdir())
    for number in range(500):
        path = files[number % len(files)]
        bit = draw.randrange(8 * path.stat().st_size)
        flip(path, bit)
        step, passed_over = newest_step(damaged)
        assert step == checkpoint.number(second)
        assert len(passed_over) == 1
        assert passed_over[0].startswith(f"{newest.name} passed over: ")
        assert path.name in passed_over[0]
        flip(path, bit)
    assert newest_step(damaged) == (checkpoint.number(newest), [])


def test_every_cut_file_is_noticed(damaged):
    newest = checkpoint.steps(damaged / "checkpoints")[-1]
    for path in newest.iterdir():
        content = path.read_bytes()
        for sixteenth in range(16):
            path.write_bytes(content[: len(content) * sixteenth // 16])
            step, passed_over = newest_step(damaged)
            assert step < checkpoint.number(newest)
            assert path.name in passed_over[0]
        path.write_bytes(content)


def swap(folder: Path) -> None:
    first, second = folder / "model.safetensors", folder / "ema.safetensors"
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def append(folder: Path) -> None:
    with (folder / "state.json").open("a") as file:
        file.write(" ")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def become_another(folder: Path) -> None:
    other = folder.with_name("step-00000014")
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    (folder / "model.safetensors").write_bytes((folder / "ema.safetensors").read_bytes())


DAMAGES = {
    "swapped files": swap,
    "appended bytes": append,
    "an empty folder": empty,
    "a file too many": lambda folder: (folder / "extra.safetensors").write_bytes(b""),
    "a file too few": lambda folder: (folder / "optim.safetensors").unlink(),
    "another manifest": lambda folder: (folder / "manifest.json").write_text(json.dumps({"files": {}, "sha256": ""})),
    "another's files": become_another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_before_the_damage_and_ends_the_same(damage, damaged, trained, capsys):
    DAMAGES[damage](checkpoint.steps(damaged / "checkpoints")[-1])
    assert main(["resume", "run"]) == 0
    assert "note: step-00000015 passed over: " in capsys.readouterr().out
    assert outcome(damaged.resolve()) == trained[1]
    assert summary(damaged)["resumed"][0]["step"] == 14


def test_dangling_hints_do_not_matter(damaged, trained):
    for name in ("latest", "best"):
        (damaged / "checkpoints" / name).write_text("step-99999999\n")
    assert main(["resume", "run"]) == 0
    assert outcome(damaged.resolve()) == trained[1]


def test_damaged_best_weights_are_forgotten_and_the_run_goes_on(damaged, trained):
    _, state = checkpoint.load(checkpoint.steps(damaged / "checkpoints")[-1])
    best = damaged / "checkpoints" / checkpoint.folder_name(state["best"]["step"])
    flip(best / "manifest.json", 100)
    point, passed_over = recovery.newest(damaged)  # all that are left have the same best
    assert point[1]["step"] == 15
    assert point[1]["best"] is None
    assert re.match(rf"step-00000015 is used although the best weights are gone: .*{best.name}", passed_over[0])
    assert main(["resume", "run", "trainer.epochs=4"]) == 0


def test_a_pipe_in_a_checkpoint_is_not_waited_for(damaged):
    path = checkpoint.steps(damaged / "checkpoints")[-1] / "state.json"
    path.unlink()
    os.mkfifo(path)
    (damaged / "checkpoints" / "step-00000099").write_text("a stray file")
    assert newest_step(damaged)[0] == 14


def test_where_no_checkpoint_verifies_all_are_named(damaged, capsys):
    for path in checkpoint.steps(damaged / "checkpoints"):
        flip(path / "manifest.json", 300)
    assert main(["resume", "run"]) == 66
    said = capsys.readouterr().err
    assert all(path.name in said for path in checkpoint.steps(damaged / "checkpoints"))
    assert said.count("\n") == 1


def test_a_run_without_a_checkpoint_begins_again(damaged, trained, capsys):
    shutil.rmtree(damaged / "checkpoints")
    assert main(["resume", "run"]) == 0
    assert "no checkpoint was saved: the run begins again" in capsys.readouterr().out
    assert outcome(damaged.resolve()) == trained[1]


def test_a_record_that_lost_rows_sends_a_run_back_to_where_it_had_them(damaged, trained, capsys):
    record = damaged / "metrics.jsonl"
    record.write_bytes(record.read_bytes()[:-400])
    assert main(["resume", "run"]) == 0
    assert "metrics.jsonl has lost rows that came before it" in capsys.readouterr().out
    assert outcome(damaged.resolve()) == trained[1]


def test_a_run_without_its_record_goes_on_where_that_is_wanted(damaged, trained, capsys):
    (damaged / "metrics.jsonl").unlink()
    assert main(["resume", "run", "trainer.epochs=4"]) == 66
    assert "dltrain resume --allow-changes goes on without the rows" in capsys.readouterr().err
    assert main(["resume", "run", "trainer.epochs=4", "--allow-changes"]) == 0
    assert "step-00000015 is used although metrics.jsonl has lost rows" in capsys.readouterr().out
    assert min(row["step"] for row in read_rows(damaged)) == 16
    assert "lost rows" in summary(damaged)["resumed"][0]["passed_over"][0]


class Disk:
    """A file on a disk with little room."""

    def __init__(self, path: Path) -> None:
        self.file, self.room = path.open("a+b", buffering=0), 1000

    def write(self, content: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = self.file.write(content[: self.room])
        self.room -= taken
        return taken

    def __getattr__(self, name: str):
        return getattr(self.file, name)


def test_rows_that_a_full_disk_does_not_take_wait_and_come_in_order(tmp_path):
    record = Record(tmp_path)
    record.close()
    record.file = disk = Disk(tmp_path / "metrics.jsonl")
    record.add({"step": 1})
    disk.room = 5
    record.add({"step": 2})
    record.add({"step": 3})
    assert "No space left" in str(record.failure)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert record.length == 12
    with pytest.raises(WriteError, match=r"metrics\.jsonl: No space left"):
        record.sync()
    disk.room = 1000
    record.add({"step": 4})
    assert record.failure is None
    assert read_rows(tmp_path) == [{"step": step} for step in (1, 2, 3, 4)]
    assert record.length == (tmp_path / "metrics.jsonl").stat().st_size
    disk.file.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_disk_has_every_file_before_the_rename_and_the_rename_before_anything_is_deleted(tmp_path):
    words = (*RUN, "name=run", "model.hidden_sizes=[8]", "trainer.checkpoint_every=1 epoch", "trainer.keep=2")
    traced = ["strace", "-f", "-y", "-e", "trace=fsync,rename,unlinkat", "-o", str(tmp_path / "calls"), "dltrain"]
    subprocess.run([*traced, *words], check=True, capture_output=True)
    calls = [line for line in (tmp_path / "calls").read_text().splitlines() if "checkpoints" in line]
    published = next(place for place, line in enumerate(calls) if '/step-00000015")' in line)
    synced = [line for line in calls[:published] if "fsync" in line and ".step-00000015" in line]
    for file in ("model.safetensors", "optim.safetensors", "ema.safetensors", "state.json", "manifest.json"):
        assert any(f"/{file}>" in line for line in synced)
    assert "/.step-00000015-" in synced[-1]
    assert synced[-1].count("/") == synced[0].count("/") - 1, "the folder itself comes last"
    assert re.search(r"fsync\(\d+<.*/checkpoints>\) = 0", calls[published + 1])
    assert "/.deleted-step-00000005" in calls[published + 2]
