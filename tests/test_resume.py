"""A run that is killed ends with the same bits as one that is not."""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import RUN, STEPS, outcome, run, start

POINTS = {
    "row": 7,
    "save: draft": 3,
    "save: tensors": 7,
    "save: manifest": 3,
    "save: synced": 4,
    "save: renamed": 4,
    "save: hinted": 4,
    "prune: renamed": 2,
}
COMMAND = (*RUN, "name=run")
FOLDER = Path("outputs/runs/run")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The run that nobody killed, and the seconds that it took."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("reference"))
    run(*RUN, "name=warm")
    begun = time.monotonic()
    assert run(*COMMAND) == 0, Path("terminal").read_text()
    seconds = time.monotonic() - begun
    whole = outcome(FOLDER.resolve())
    os.chdir(before)
    return whole, seconds


def finished() -> dict:
    assert run(*COMMAND) == 0, Path("terminal").read_text()
    return outcome(FOLDER.resolve())


def test_kills_at_random_instants_change_nothing(reference, request):
    whole, seconds = reference
    kills_wanted = 500 if request.config.getoption("--long") else 20
    seed = int(os.environ.get("KILL_SEED", random.randrange(10**6)))
    print(f"KILL_SEED={seed}")
    draw = random.Random(seed)
    kills = 0
    while kills < kills_wanted:
        process = start(*COMMAND)
        process.join(math.exp(draw.uniform(math.log(0.02), math.log(seconds))))
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            continue
        assert process.exitcode == 0, Path("terminal").read_text()
        assert outcome(FOLDER.resolve()) == whole
        shutil.rmtree("outputs")
    assert finished() == whole


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_changes_nothing(point, reference):
    assert run(*COMMAND, point=point, count=POINTS[point]) == -signal.SIGKILL
    assert finished() == reference[0]


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_kill_after_any_step_changes_nothing(step, reference):
    assert run(*COMMAND, point="step", count=step) == -signal.SIGKILL
    assert finished() == reference[0]


def test_a_kill_after_every_step_changes_nothing(reference):
    each_step = (*COMMAND, "trainer.checkpoint_every=1 steps")
    kills = 0
    while run(*each_step, point="step", count=2) == -signal.SIGKILL:
        kills += 1
    assert kills >= STEPS - 1
    ours, theirs = outcome(FOLDER.resolve()), reference[0]
    assert ours == theirs


def test_the_real_command_killed_and_resumed_changes_nothing(reference):
    command = [sys.executable, "-m", "dltrain"]
    process = subprocess.Popen([*command, *COMMAND], stdout=subprocess.DEVNULL)
    while not list(FOLDER.glob("checkpoints/step-*")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, "resume", "run"], stdout=subprocess.DEVNULL, check=True)
    assert outcome(FOLDER.resolve()) == reference[0]
