"""`dltrain bench`: the same work for everyone, measured in turn, and what could not be measured said."""

import json
import runpy
from pathlib import Path

import pytest
import torch

from dltrain.bench import contestants, measure, peers
from dltrain.bench.machine import machine
from dltrain.bench.measure import Result
from dltrain.bench.report import rows
from dltrain.bench.task import Task, prepare
from dltrain.cli import main
from dltrain.verbs import bench

CHECKOUT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SIZES = ("model=mlp", "data=synthetic", "data.num_train=300", "data.num_test=60", "data.val_size=60")
SMALL = (*SIZES, "data.image_size=32", "data.batch_size=16", "device=cpu", "device.precision=fp32")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return prepare(list(SMALL), batches=3, evaluated=2, folder=tmp_path)


class Broken(contestants.Course):
    """A contestant that cannot take a step."""

    name = "broken"

    def steps(self, count: int) -> None:
        raise RuntimeError("first line\nthe cause")


def test_a_bench_measures_everyone_and_writes_what_it_saw(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "EPOCHS", {"mlp": (2, 1)})
    monkeypatch.setattr(bench, "contestants", lambda precision: [contestants.Ours, contestants.Course])
    output = tmp_path / "results"
    assert main(["bench", "--quick", "--repeats", "2", "--output", str(output), *SMALL]) == 0
    record = json.loads(next(output.iterdir()).read_text())
    seen = {(result["measure"], result["contestant"]) for result in record["results"]}
    assert seen == {(kind, who) for kind in ("step", "epoch") for who in ("dltrain", "course loop")}
    assert all(len(result["seconds"]) == 2 and result["error"] is None for result in record["results"])
    assert record["machine"]["matmul_flops_per_second"]["fp32"] > 0
    assert machine(CPU)["copy_bytes_per_second"] == record["machine"]["copy_bytes_per_second"], "the rates are cached"
    printed = capsys.readouterr().out
    assert "course loop, fp32" in printed
    assert " x" in printed


@pytest.mark.parametrize("kind", [contestants.Course, *peers.installed()], ids=lambda kind: kind.name)
def test_everyone_does_the_same_work(task, kind):
    ours, theirs = contestants.Ours(task), kind(task)
    for contestant in (ours, theirs):
        contestant.steps(7)
    assert theirs.losses[-1] == pytest.approx(ours.losses[-1], rel=1e-3)
    theirs.epoch()


def test_contestants_train_copies_of_their_own(task):
    before = [parameter.clone() for parameter in task.initial.parameters()]
    contestants.Ours(task).steps(2)
    contestants.Course(task).steps(2)
    assert all(map(torch.equal, task.initial.parameters(), before))


def test_a_contestant_that_fails_is_a_result_and_the_others_go_on(task):
    kinds = [contestants.Ours, Broken, contestants.Course]
    results = list(measure.measure(task, kinds, repeats=2, seconds=0.01, command=False))
    errors = {(result.measure, result.contestant): result.error for result in results if result.error}
    assert errors == {("step", "broken"): "RuntimeError: the cause"}
    assert all(len(result.seconds) == 2 for result in results if not result.error)
    assert [cells[2] for cells in rows([result.as_dict() for result in results]) if "broken" in cells[1]] == ["failed"]


def test_rounds_begin_with_another_contestant_each_time(task):
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    results = {name: Result("mlp", "step", name, "fp32", 1) for name in "abc"}
    measure._interleaved(works, results, task, 3)
    assert order == list("abcbcacab")


def test_a_command_leaves_weights_and_a_picture(task, tmp_path):
    for kind, weights in ((contestants.Ours, "*.safetensors"), (contestants.Course, "*.pt")):
        output = tmp_path / "out" / kind.name
        measure._process(kind(task).command(output))()
        assert list(output.rglob(weights))
        assert list(output.rglob("curves.png"))


def test_rates_and_ratios_are_of_medians():
    ours = Result("mlp", "step", "dltrain", "fp32", 100, [1.0, 2.0, 9.0], 2.3).as_dict()
    theirs = Result("mlp", "step", "course loop", "fp32", 100, [4.0, 3.0, 8.0], 2.3).as_dict()
    odd = {**theirs, "contestant": "odd", "loss": 2.31}
    assert [cells[5] for cells in rows([ours, theirs, odd])] == ["2.30000", "2.30000", "2.31000 differs"]
    assert [cells[5] for cells in rows([ours, {**odd, "precision": "bf16"}])] == ["2.30000", "2.31000"]
    assert list(rows([ours, theirs])) == [
        ("step", "dltrain, fp32", "50", "11-100", "", "2.30000"),
        ("step", "course loop, fp32", "25", "12-33", "2.00 x", "2.30000"),
    ]


def test_colour_images_are_refused_in_one_line(tmp_path, capsys):
    from dltrain.bench.task import write_idx
    from dltrain.config.errors import ConfigError

    with pytest.raises(ConfigError, match="grey images of 28 pixels"):
        write_idx(tmp_path, "train", torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.zeros(2))


def test_the_page_holds_what_the_files_of_results_hold():
    written = runpy.run_path(str(CHECKOUT / "scripts/bench/write_docs.py"))
    page = (CHECKOUT / "docs/performance.md").read_text()
    _, _, rest = page.partition(written["START"])
    assert rest.partition(written["END"])[0].strip() == written["measured"]().strip()
    for name, _ in [*written["records"](), *written["records"]("scaling-")]:
        assert (CHECKOUT / "docs" / f"{name}.png").is_file()
