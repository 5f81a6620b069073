"""Runs that are killed: processes forked from a warm server, which die when and where a test says."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helpers import LITTLE, rows, summary

from dltrain.run import checkpoint

RUN = (
    *LITTLE, "data.image_size=28", "data.batch_size=64", "data.train_size=300", "data.val_size=60", "data.num_test=200",
    "model=mlp", "model.norm=batch", "model.dropout=0.2", "optim=adam", "schedule=plateau", "schedule.patience=0",
    "schedule.threshold=1", "augment=crop_flip", "trainer.ema=0.9", "trainer.epochs=3", "trainer.log_every=2",
    "trainer.checkpoint_every=2 steps", "device.precision=fp32", "device.threads=1",
)  # fmt: skip
STEPS = 15
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["dltrain.build", "dltrain.report.curves", "dltrain.verbs._start"])


def die() -> None:
    """What a process does where nothing else is wanted."""
    os.kill(os.getpid(), signal.SIGKILL)


def send(*numbers: int) -> None:
    """Signals to all of one's process group."""
    for number in numbers:
        os.killpg(0, number)


def nothing() -> None:
    """What a process does before it begins, where nothing else is wanted."""


def start(
    *words: str,
    point: str = "",
    count: int = 1,
    action: Callable[[], object] = die,
    prepare: Callable[[], object] = nothing,
) -> Any:
    """Start `dltrain` in a process and a group of its own, which does something when it comes to a point so often.

    `prepare` is called first, in that process.
    """
    process = CONTEXT.Process(target=_child, args=(words, str(Path.cwd()), point, count, action, prepare))
    process.start()
    return process


def run(*words: str, **when: Any) -> int:
    """As `start`, and wait; returns the exit code, or minus the signal."""
    process = start(*words, **when)
    process.join()
    return int(process.exitcode)


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be the same however often a run was killed; wall-clock columns are left out."""
    tensors, state = checkpoint.load(checkpoint.steps(folder / "checkpoints")[-1])
    result = summary(folder)
    return {
        "rows": [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows(folder)],
        "tensors": {
            f"{file}.{key}": each.numpy().tobytes() for file, group in tensors.items() for key, each in group.items()
        },
        **{key: state[key] for key in ("step", "optim", "schedule", "monitor", "random", "best", "preprocessing")},
        **{key: result[key] for key in ("status", "steps", "train", "val", "test", "weights_sha256", "bit_exact")},
    }


def _child(
    words: Sequence[str],
    where: str,
    point: str,
    count: int,
    action: Callable[[], object],
    prepare: Callable[[], object],
) -> None:
    os.setpgid(0, 0)
    # A sweep in this test session may have started the server, with signals blocked, which its processes inherit.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir(where)
    nowhere = os.open("terminal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    from dltrain.cli import main
    from dltrain.engine import Engine
    from dltrain.run import faults

    prepare()
    left = [count]

    def reach(reached: str) -> None:
        if reached == point:
            left[0] -= 1
            if left[0] == 0:
                action()

    take, score = Engine.step, Engine.score

    def step(engine: Engine, *arguments: Any) -> None:
        take(engine, *arguments)
        reach("step")

    def scored(engine: Engine, *arguments: Any) -> Any:
        outputs = score(engine, *arguments)
        reach("score")
        return outputs

    faults.reach = reach
    Engine.step, Engine.score = step, scored  # type: ignore[method-assign]
    sys.argv = ["dltrain", *words, "--debug"]
    sys.exit(main())
