"""`dltrain watch`: curves in characters, every state that a run can be in, and an end that leaves a clean terminal."""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import train

from dltrain.cli import main
from dltrain.report.canvas import Canvas, Curve
from dltrain.report.terminal import axis, panel, ticks
from dltrain.run.lock import Lock
from dltrain.verbs import _watch_view

CHECKOUT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "dltrain", "watch")
ESCAPE, CURSOR = b"\x1b", b"\x1b[?25h"


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """A run of six epochs."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr("dltrain.report.run_pictures.draw_run", lambda folder: None)
        return train("model=mlp", "data.image_size=28", "trainer.epochs=6", "trainer.log_every=2")


@pytest.fixture
def folder(completed):
    """A copy to do anything to."""
    return Path(shutil.copytree(completed, "run")).resolve()


def under_way(folder):
    """The folder as while it is trained, for as long as the lock is held."""
    (folder / "summary.json").unlink()
    lock = Lock()
    lock.take(folder)
    return lock


def shown(capsys, *words):
    """What one picture holds."""
    assert main(["watch", *words]) == 0
    return capsys.readouterr().out


def drawn(width, height, *curves):
    canvas = Canvas(width, height, (0.0, 3.0), (0.0, 3.0))
    for curve in curves:
        canvas.draw(curve)
    return [line.plain for line in canvas.lines()]


def test_lines_are_braille_and_gaps_stay_open():
    assert drawn(2, 1, Curve("a", [(0, 0), (1, 1), (2, 2), (3, 3)], "")) == ["⡠⠊"]
    assert drawn(2, 1, Curve("a", [(0, 0), (1, None), (2, float("nan")), (3, 3)], "")) == ["⡀⠈"]
    assert drawn(2, 1, Curve("a", [(0, 0), (3, 0)], ""), Curve("b", [(3, 0)], "", "o")) == ["⣀o"]


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0.11, 0.83, 4, [0.2, 0.4, 0.6, 0.8]), (1, 25, 3, [10, 20]), (-1, 1, 2, [0]), (3e-9, 9e-9, 3, [4e-9, 6e-9, 8e-9])],
)
def test_ticks_are_few_and_round(low, high, most, expected):
    assert ticks(low, high, most) == expected


def test_the_axis_has_its_numbers_where_they_are():
    line = axis(0, 100_000, 73)
    assert line.split() == ["0", "20,000", "40,000", "60,000", "80,000", "100,000"]
    assert line.index("60,000") == 43 - 3


@pytest.mark.parametrize(
    "values", [[1.0], [2.0, 2.0], [0.0, 0.0], [None, None], [1e-30, 1e30], [1e300, -1e299], [-5, 5]]
)
@pytest.mark.parametrize(("width", "height"), [(40, 5), (80, 8), (200, 40), (9, 3)])
def test_whatever_is_drawn_fits(values, width, height):
    lines = panel("loss", [Curve("train", list(enumerate(values)), "blue")], width=width, height=height)
    assert len(lines) == height
    assert max(line.cell_len for line in lines) <= max(width, 25)


@pytest.mark.parametrize(("width", "height"), [(40, 14), (80, 23), (120, 30), (200, 49), (40, 3)])
def test_a_picture_fits_the_terminal(folder, width, height):
    lines = [line.plain for line in _watch_view.read(folder).lines(width=width, height=height)]
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    if height > 10:
        assert any("loss by step" in line for line in lines)
        assert any("accuracy by step" in line for line in lines) == (height > 20)
    if width > 100:
        assert any("loss by step" in line and "accuracy by step" in line for line in lines)


def test_a_completed_run_has_its_numbers_and_no_colour_in_a_pipe(completed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("LINES", "0")
    text = shown(capsys, str(completed))
    summary = json.loads((completed / "summary.json").read_text())
    assert text.startswith("run  completed  epoch 6.00/6  step 30\n")
    assert f"{summary['test']['accuracy']:.4f}" in text
    assert f"best val accuracy {summary['best']['value']:.4f} at step {summary['best']['step']}\n" in text
    assert "⠒⠒ train  o val  x test" in text
    assert "\x1b" not in text
    assert " left" not in text


def test_neither_torch_nor_matplotlib_is_imported(completed):
    program = (
        f"import sys; from dltrain.cli import main; main(['watch', {str(completed)!r}]);"
        "assert not {'torch', 'matplotlib', 'hydra', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(CHECKOUT)}, check=True, capture_output=True)


def test_every_state_is_told(folder, capsys):
    (folder / "summary.json").write_text(json.dumps({"status": "diverged", "cause": "a loss of \x1b[2J"}))
    assert "run  diverged  epoch 6.00/6  step 30  a loss of ?[2J" in shown(capsys, "run", "--once")
    with under_way(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:8]) + lines[8][:9])  # a line of which a part is written
        text = shown(capsys, "run")
        assert "run  running  epoch" in text
        assert " examples/s  about 0 s left" in text
        assert "test" not in text
        os.utime(folder / "metrics.jsonl", (0, time.time() - 180))
        assert "last row 3 min ago" in shown(capsys, "run")
        (folder / "metrics.jsonl").write_text("")
        assert shown(capsys, "run") == "run  running\nwaiting for the first row\n"
    assert "run  unfinished  its process is gone  dltrain resume goes on" in shown(capsys, "run")


def test_rows_without_numbers_are_gaps(folder, capsys):
    rows = [{"split": "train", "step": step, "epoch": step / 5, "loss": None, "accuracy": None} for step in (1, 2)]
    rows.append({"split": "val", "step": 2, "epoch": 0.4, "loss": 3.25, "perplexity": 25.8})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '[1]\n{"split": 1}\n')
    text = shown(capsys, "run")
    assert "perplexity by step" in text
    assert text.count("o") > 4
    assert "accuracy by step" not in text


def test_a_hostile_name_moves_no_cursor(completed, capsys):
    target = Path("a\x1b[2J [red]=b")
    shutil.copytree(completed, target)
    assert shown(capsys, str(target)).startswith("a?[2J [red]=b  completed")


def test_what_cannot_be_shown_is_told_in_one_line(folder, capsys):
    assert main(["watch"]) == 2
    assert main(["watch", "nothing"]) == 78
    (folder / "metrics.jsonl").write_text("{]\n{}\n")
    assert main(["watch", "run"]) == 66
    (folder / "metrics.jsonl").unlink()
    (folder / "config.yaml").write_text("# a=b\nmodel:\noptim:\ndata:\ntrainer:\n")
    assert main(["watch", "run"]) == 66
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert "metrics.jsonl is damaged" in told[2]
    assert "config.yaml is damaged" in told[3]


def test_a_sweep_has_a_line_a_job(completed, capsys):
    sweep = Path("outputs/sweeps/grid")
    ledger = [{"words": []}, {"job": 0, "status": "completed"}, {"job": 1}, {"job": 2, "status": "failed"}, {"job": 3}]
    sweep.mkdir(parents=True)
    (sweep / "sweep.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ledger))
    for number in "01":
        shutil.copytree(completed, sweep / number)
    with under_way(sweep / "1"):
        head, _, *jobs = shown(capsys, "grid").splitlines()
    assert head == "grid  running  1 of 4 completed"
    assert [line.split()[:2] for line in jobs] == [
        ["grid/1", "running"],
        ["grid/2", "failed"],
        ["grid/3", "waiting"],
        ["grid/0", "completed"],
    ]
    assert "val accuracy" in jobs[-1]


class Screen:
    """The command on a terminal of its own."""

    def __init__(self, *words):
        terminal, inside = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            [*COMMAND, *words], stdin=inside, stdout=inside, stderr=inside, env=environment, start_new_session=True
        )
        os.close(inside)
        self.terminal, self.seen = terminal, b""

    def until(self, text):
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.terminal, 65536)
                except OSError:  # the other side is closed
                    break
        return self.seen

    def ended(self, code):
        self.until(b"what never comes")
        assert self.process.wait(timeout=20) == code
        os.close(self.terminal)
        return self.seen


def test_it_follows_a_run_also_backwards_and_ends_with_it(folder):
    record, end = folder / "metrics.jsonl", (folder / "summary.json").read_text()
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(lines[:8]))
    with under_way(folder):
        screen = Screen(str(folder))
        screen.until(b"running")
        record.write_text("".join(lines[:2]))  # rolled back
        screen.until(b"step 4")
        record.write_text("".join(lines))
        (folder / "summary.json").write_text(end)
        seen = screen.ended(0)
    assert b"completed" in seen
    assert seen.rfind(b"completed") > seen.rfind(b"\x1b[2K") > 0
    assert seen.rfind(CURSOR) > seen.rfind(b"\x1b[?25l")
    assert b"\x1b[?1049h" not in seen, "the last picture stays"


@pytest.mark.parametrize("way", ["interrupted", "gone"])
def test_it_leaves_a_clean_terminal(folder, way):
    with under_way(folder):
        screen = Screen(str(folder))
        screen.until(b"accuracy by step")
        if way == "interrupted":
            os.killpg(screen.process.pid, signal.SIGINT)
        else:
            shutil.rmtree(folder)
        seen = screen.ended(130 if way == "interrupted" else 66)
    assert seen.rfind(CURSOR) > seen.rfind(b"\x1b[?25l")
    assert b"dltrain: " in seen.splitlines()[-1]
    assert b"Traceback" not in seen
