"""What a sweep shows on a terminal of 80 columns."""

import io
import re
from types import SimpleNamespace

from rich.console import Console as RichConsole

from dltrain.run.console import Console
from dltrain.sweep.summary import Group, ranked
from dltrain.verbs._sweep_board import Board
from dltrain.verbs._sweep_table import _tables_of_groups

LONG = "optim.lr=0.0123456 optim.weight_decay=0.0123456 model.dropout=0.123456"
INTERVAL = r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]"


def terminal() -> Console:
    console = Console()
    console.terminal = RichConsole(file=io.StringIO(), force_terminal=True, width=80, highlight=False)
    return console


def printed(console: Console) -> str:
    return console.terminal.file.getvalue()


def running(tmp_path, number: int):
    config = SimpleNamespace(trainer=SimpleNamespace(epochs=600))
    (tmp_path / str(number)).mkdir()
    row = '{"split": "train", "step": 9, "epoch": 177.9, "loss": 0.0011, "accuracy": 1.0}\n'
    (tmp_path / str(number) / "metrics.jsonl").write_text(row)
    job = SimpleNamespace(number=number, run_folder=tmp_path / str(number), composition=SimpleNamespace(config=config))
    return SimpleNamespace(job=job, stopped="", started=0.0)


def test_the_board_tells_how_far_it_is_and_leaves_room_for_an_echo_and_nothing_behind(tmp_path):
    console = terminal()
    with Board(console, lambda job: LONG, lambda: "3 of 7 done") as board:
        board.look([running(tmp_path, 0), running(tmp_path, 1)])
        shown = printed(console)
        board.looked = 0.0
        board.look([])
    assert "3 of 7 done" in shown
    lines = [line for line in shown.splitlines() if "177.90/600" in line]
    assert len(lines) == 2
    assert all("0.0011    1.0000" in line and len(line.rstrip()) <= 77 for line in lines)
    assert "seconds" not in printed(console)[len(shown) :]


def groups(*settings: str) -> list[Group]:
    seeds = [
        [
            {"settings": {"seed": str(seed)}, "status": "completed", "val_accuracy": value * (1 + seed / 10)}
            for seed in range(3)
        ]
        for value in (0.5, 0.4, 0.3)
    ]
    made = [Group(setting, tuple(rows)) for setting, rows in zip(settings, seeds, strict=False)]
    return ranked(made, "val_accuracy")


def test_no_number_breaks_on_a_narrow_terminal():
    console = terminal()
    tables = _tables_of_groups(groups(LONG, LONG.replace("lr=0.01", "lr=0.02"), "model=mlp"), "val_accuracy", console)
    for each in tables:
        console.say(each)
    shown = printed(console)
    for whole, count in {LONG.split()[1]: 2, LONG.split()[2]: 2, r"0\.\d{4} ± 0\.\d{4}": 3, INTERVAL: 2}.items():
        assert len(re.findall(whole, shown)) == count, shown
    assert len(tables) == 2
    console.terminal.width = 240
    assert len(_tables_of_groups(groups("model=mlp", "model=lenet"), "val_accuracy", console)) == 1
