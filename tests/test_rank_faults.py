"""Several ranks of which one fails, hangs, is refused or meets a NaN: all end, and one line says why."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
from helpers import summary
from test_ranks import COMMAND, RUN, codes, said, several

SPOILED = """
import os
from dltrain.engine import Engine

take = Engine.step

def step(engine, batch, number):
    if os.environ["RANK"] == "{rank}" and number == 4:
        {deed}
    take(engine, batch, number)

Engine.step = step
"""
REFUSAL = "from dltrain.config.errors import ConfigError; raise ConfigError('nobody else minds')"
POISON = "batch[0].view(-1)[0] = float('nan')"


def spoiled(deed: str, *words: str, rank: int = 1) -> Any:
    """The command, which starts two ranks; one of them does something before its fifth step."""
    Path("sitecustomize.py").write_text(SPOILED.format(deed=deed, rank=rank))
    paths = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    return faults.start(*COMMAND, "device.count=2", "name=run", *words, prepare=partial(look_in, paths))


def look_in(paths: str) -> None:
    os.environ["PYTHONPATH"] = paths


def lines() -> list[str]:
    text = Path("terminal").read_text(errors="replace").replace("\r", "\n")
    return [line for line in text.splitlines() if line.startswith("dltrain:")]


def test_what_one_rank_alone_refuses_is_said_by_it_alone() -> None:
    started = time.monotonic()
    assert codes([spoiled(REFUSAL)]) == [78]
    assert lines() == ["dltrain: rank 1: nobody else minds"]
    assert time.monotonic() - started < 60
    assert (summary(RUN)["status"], summary(RUN)["cause"]) == ("failed", "rank 1: nobody else minds")


def test_what_the_first_rank_cannot_write_ends_all_of_them() -> None:
    Path("outputs").mkdir()
    deed = "import shutil; shutil.rmtree('outputs/runs/run/checkpoints', ignore_errors=True); "
    deed += "open('outputs/runs/run/checkpoints', 'w').close()"
    words = ("trainer.checkpoint_every=5 steps", "trainer.max_save_failures=1")
    assert codes([spoiled(deed, *words, rank=0)]) == [74], said()
    assert len(lines()) == 1
    assert "cannot write" in lines()[0]


@pytest.mark.parametrize(
    ("policy", "code", "status"),
    [
        ("skip", 0, "completed"),
        ("stop", 65, "diverged"),
        pytest.param("rollback", 65, "diverged", marks=pytest.mark.long),
    ],
)
def test_what_is_not_finite_on_one_rank_is_so_for_all(policy: str, code: int, status: str) -> None:
    assert codes([spoiled(POISON, f"trainer.on_divergence={policy}", "trainer.log_every=1")]) == [code], said()
    found = summary(RUN)
    assert (found["status"], found["skipped_steps"], found["ranks"]) == (status, 1, 2)
    assert found["steps"] == (10 if policy == "skip" else 5)
    assert found["rollbacks"] == (3 if policy == "rollback" else 0)
    assert not any("rank 1" in line for line in lines())


def test_a_rank_that_hangs_is_named() -> None:
    stop = partial(os.kill, 0, signal.SIGSTOP)  # its process group, which it is alone in
    first, second = several(*COMMAND, "name=run", "trainer.collective_timeout=4", point="step", count=5, action=stop)
    try:
        assert codes([first]) == [1]
    finally:
        second.kill()
    expected = "dltrain: rank 1 did not come to step 5 within 4 s: all were ended; dltrain resume goes on"
    assert lines() == [expected]
    assert summary(RUN)["cause"] == expected.removeprefix("dltrain: ")


def test_a_signal_that_comes_while_the_run_ends_changes_nothing() -> None:
    deed = "import multiprocessing, dltrain.report.run_pictures as pictures; draw = pictures.draw_run; "
    deed += "stop = lambda: os.kill(multiprocessing.parent_process().pid, 15); "
    deed += "pictures.draw_run = lambda folder: (stop(), __import__('time').sleep(1), draw(folder))"
    assert codes([spoiled(deed, rank=0)]) == [0], said()
    assert (summary(RUN)["status"], lines()) == ("completed", [])


@pytest.mark.long
def test_a_rank_that_hangs_is_killed_by_the_launcher() -> None:
    process = spoiled("os.kill(os.getpid(), 19)", "trainer.collective_timeout=4")
    process.join(120)
    assert process.exitcode == 1
    assert ["rank 1 did not come to step 5 within 4 s" in line for line in lines()] == [True]


@pytest.mark.long
@pytest.mark.parametrize(("deed", "code"), [("raise MemoryError", 71), ("raise ValueError('odd')", 1)])
def test_the_exit_code_is_that_of_the_rank_that_failed(deed: str, code: int) -> None:
    assert codes([spoiled(deed)]) == [code]
    assert [line.startswith("dltrain: rank 1: ") for line in lines()] == [True], lines()
