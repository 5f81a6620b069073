"""Several ranks of one run: the same mathematics as one, one writer, one end. All on two gloo ranks of this machine."""

import json
import os
import shutil
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import faults
import pytest
import ranks
from helpers import LITTLE, rows, summary
from omegaconf import OmegaConf

COMMAND = (*LITTLE, "data.num_test=65", "data.val_size=63", "model=mlp", "device.precision=fp32", "device.threads=1")
NUMBERS = ("step", "split", "loss", "accuracy")
RUN = Path("outputs/runs/run")


def port() -> str:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return str(some.getsockname()[1])


def several(*words: str, size: int = 2, **second: Any) -> list[Any]:
    """The command on ranks started as torchrun starts them; the last one does something at a point."""
    free = port()
    return [
        faults.start(*words, prepare=partial(ranks.be, rank, size, free), **(second if rank == size - 1 else {}))
        for rank in range(size)
    ]


def codes(processes: list[Any]) -> list[int]:
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def said() -> str:
    return " ".join(Path("terminal").read_text(errors="replace").split())


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What the cases of `ranks.py` came to on one rank and on two."""
    folder, free = tmp_path_factory.mktemp("ranks"), port()
    places = [(1, 0), (2, 0), (2, 1)]
    started = [
        faults.CONTEXT.Process(target=ranks.main, args=(rank, size, free, folder / f"{size}.json"))
        for size, rank in places
    ]
    for process in started:
        process.start()
    assert codes(started) == [0, 0, 0]
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in (1, 2)}


@pytest.mark.parametrize("case", [*ranks.CASES])
def test_two_ranks_take_the_steps_of_one(outcomes, case: str) -> None:
    one, two = outcomes[1][case], outcomes[2][case]
    assert len(one["losses"]) == 20
    assert two["seen"] == one["seen"]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert [loss for loss, _ in two["rows"]] == pytest.approx([loss for loss, _ in one["rows"]], abs=1e-5)
    assert [accuracy for _, accuracy in two["rows"]] == [accuracy for _, accuracy in one["rows"]]
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)
    assert two["counted"][1:] == one["counted"][1:]
    assert one["counted"][2] == 33
    assert one["losses"][-1] < one["losses"][0]


def test_what_is_not_finite_on_one_rank_changes_nothing_on_any(outcomes) -> None:
    first, second = outcomes[2]["poisoned"]
    assert (first["finite"], second["finite"]) == (True, False)
    assert (first["kept"], second["kept"]) == (True, True)
    assert (first["nonfinite"], second["nonfinite"]) == (1, 1)


def test_batch_norms_statistics_are_the_same_on_all_ranks(outcomes) -> None:
    first, second = outcomes[2]["statistics"]["every"]
    assert first == second


def test_gradients_of_parts_are_averaged_once_a_step(outcomes) -> None:
    assert outcomes[2]["reductions"] == 1


def test_a_signal_to_one_rank_ends_all_and_as_many_go_on_to_the_same_bits() -> None:
    """Within an evaluation, too. Another number says so."""
    sizes = ["data.batch_size=16", "data.val_size=131", "data.num_test=131"]  # 5 batches an evaluation
    words = [*COMMAND, *sizes, "trainer.epochs=2", "trainer.log_every=3", "augment=flip", "model.norm=batch"]
    assert codes(several(*words, "name=whole")) == [0, 0]
    whole = RUN.with_name("whole")
    assert OmegaConf.load(whole / "config.yaml").device.count == 2, "so that it can be started again without torchrun"
    assert codes(several(*words, "name=run", point="step", count=9, action=stop)) == [143, 143]
    assert summary(RUN)["status"] == "interrupted"
    assert summary(RUN)["steps"] == 9
    states = [path.parent.name for path in (RUN / "checkpoints").glob("*/state.json")]
    assert "step-00000009" in states
    other = shutil.copytree(RUN, RUN.with_name("other"))

    for evaluated, steps in ((2, 36), (12, 72)):  # the first validation, then the test after the second one
        assert codes(several("resume", "run", point="score", count=evaluated, action=stop)) == [143, 143]
        assert (summary(RUN)["status"], summary(RUN)["steps"]) == ("interrupted", steps)
        assert (rows(RUN)[-1]["step"], rows(RUN)[-1]["split"]) == (steps, "train" if steps == 36 else "val")
        assert summary(RUN)["test"] is None

    assert codes(several("resume", "run")) == [0, 0]
    assert [{key: row.get(key) for key in NUMBERS} for row in rows(RUN)] == [
        {key: row.get(key) for key in NUMBERS} for row in rows(whole)
    ]
    assert summary(RUN)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert summary(RUN)["bit_exact"]
    assert summary(RUN)["ranks"] == 2

    assert codes(several("resume", "other", size=1)) == [0]
    assert "ranks 2 then, 1 now" in said()
    assert (summary(other)["bit_exact"], summary(other)["ranks"]) == (False, 1)
    assert [row["step"] for row in rows(other)] == [row["step"] for row in rows(whole)]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_rows(process: Any, more_than: int = 0) -> None:
    until = time.monotonic() + 60
    while not (RUN / "metrics.jsonl").is_file() or len(rows(RUN)) <= more_than:
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks in Linux's /proc")
def test_a_signal_to_the_launcher_saves_and_a_rank_that_is_killed_is_named() -> None:
    words = (*COMMAND, "device.count=2", "name=run", "trainer.epochs=2000", "trainer.checkpoint_every=10 minutes")
    process = faults.start(*words)
    wait_for_rows(process)
    os.kill(process.pid, signal.SIGTERM)
    assert codes([process]) == [143], said()
    assert summary(RUN)["status"] == "interrupted"
    steps = summary(RUN)["steps"]
    assert (RUN / "checkpoints" / f"step-{steps:08}" / "state.json").is_file()

    process, before = faults.start(*words), len(rows(RUN))
    wait_for_rows(process, before)
    _, second = [rank for server in children(process.pid) for rank in children(server)]
    os.kill(second, signal.SIGKILL)
    assert codes([process]) == [1]
    assert "rank 1 was killed by SIGKILL" in said()
