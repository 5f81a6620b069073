"""`dltrain bench`: the same work for everyone, measured in turn, and what could not be measured said."""

import json
import os
import runpy
import subprocess
import sys
import time
from importlib.util import find_spec
from multiprocessing import get_start_method, parent_process
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dltrain.bench import contestants, measure, peers
from dltrain.bench import machine as machines
from dltrain.bench.apart import Apart, elsewhere
from dltrain.bench.floor import floor, moved_bytes
from dltrain.bench.machine import machine, write_results
from dltrain.bench.measure import Result
from dltrain.bench.report import machine_lines, result_table, rows
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


class Abroad(contestants.Course):
    """The course loop, which must not train in our process."""

    def __init__(self, work: Any, precision: str) -> None:
        assert parent_process()
        super().__init__(work, precision)


class Ends(contestants.Course):
    """A contestant whose process ends, but not this one's."""

    name = "ends"

    def epoch(self) -> None:
        assert parent_process(), "it is not apart"
        os._exit(1)


class OursBroken(contestants.Ours):
    """dltrain where it cannot be set up."""

    def __init__(self, task: Task, precision: str) -> None:
        raise RuntimeError("out of luck")


class Clockwork(contestants.Contestant):
    """A contestant of which a step takes so many seconds by its own clock."""

    name = "clockwork"
    each = 0.001

    def steps(self, count: int) -> None:
        self.losses = [2.3]

    def step_seconds(self, count: int) -> float:
        return count * self.each

    def epoch(self) -> None:
        pass


OURS, COURSE, BROKEN = (contestants.Ours, "fp32"), (contestants.Course, "fp32"), (Broken, "fp32")
RATES = {"matmul_flops_per_second": {"fp32": 1e12}, "copy_bytes_per_second": 1e10}
MACHINE = {"device": "fake", **RATES, "python": "3.11", "packages": {}}


def result(who: str, precision: str, seconds: list[float], loss: float | None = None, **more: Any) -> dict[str, Any]:
    """A result of a step on 100 images as a file has it."""
    fields = {"measure": "step", **more}
    made = Result("mlp", fields.pop("measure"), who, precision, fields.pop("images", 100), seconds, loss, **fields)
    return {"batch_size": 10, "image_size": 96, "train_flops_per_image": 1e9, **made.as_dict()}


def test_a_bench_measures_everyone_and_writes_what_it_saw(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(bench, "QUICK_EPOCHS", {"mlp": (2, 1)})
    monkeypatch.setattr(bench, "contestants", lambda precision, quick: [OURS, (Abroad, "fp32")])
    output = tmp_path / "results"
    assert main(["bench", "--quick", "--repeats", "2", "--output", str(output), *SMALL]) == 0
    record = json.loads(next(output.iterdir()).read_text())
    seen = {(result["measure"], result["contestant"]) for result in record["results"]}
    assert seen == {(kind, who) for kind in ("step", "epoch") for who in ("dltrain", "course loop")}
    assert all(len(result["seconds"]) == 2 and result["error"] is None for result in record["results"])
    assert record["machine"]["matmul_flops_per_second"]["fp32"] > 0
    assert machine(CPU)["copy_bytes_per_second"] == record["machine"]["copy_bytes_per_second"], "the rates are cached"
    assert all(result["epoch_images"] == {"train": 32, "evaluated": 16} for result in record["results"])
    printed = capsys.readouterr().out
    assert "an epoch trains on 32 images and evaluates 16" in printed
    assert "course loop, fp32" in printed
    assert " x" in printed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [contestants.Course, *peers.installed()], ids=lambda kind: kind.name)
def test_everyone_does_the_same_work(task, kind, precision):
    ours, theirs = contestants.Ours(task, precision), kind(task, precision)
    for contestant in (ours, theirs):
        contestant.steps(7)
    assert theirs.losses[-1] == pytest.approx(ours.losses[-1], rel=1e-3 if precision == "fp32" else 1e-2)
    theirs.epoch()


def test_ours_in_another_precision_trains_on_the_same_batches_from_the_same_weights(task):
    chosen, other = contestants.Ours(task, "fp32"), contestants.Ours(task, "bf16")
    assert chosen.run is task.run
    assert other.run.engine.precision.name == "bf16"
    for (images, labels), (others, answers) in zip(chosen.batches, other.batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, answers)
    assert all(map(torch.equal, chosen.run.model.parameters(), other.run.model.parameters()))
    assert "device.precision=bf16" in other.command(Path("out"))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_everyone_is_there_in_our_precision_and_ours_in_float32(precision, quick, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda: [peers.Lightning, peers.Timm])
    listed = [(kind.name, each) for kind, each in bench.contestants(precision, quick=quick)]
    assert listed[0] == ("dltrain", precision), "whom others are compared with"
    assert {("dltrain", "fp32"), ("course loop", "fp32"), ("course loop", "bf16")} < set(listed)
    for name in ("Lightning", "timm"):
        wanted = ["bf16"] if precision == "bf16" else []
        wanted += ["fp32"] if not (quick and wanted) else []
        assert [each for who, each in listed if who == name] == wanted
    assert len(set(listed)) == len(listed)


def test_an_epoch_is_long_enough_and_its_evaluation_a_sixth():
    for model in bench.ALL:
        for quick in (False, True):
            trained, evaluated = bench.epoch_batches(model, "cpu", quick=quick)
            assert trained == 6 * evaluated
            assert quick or trained >= 24
        assert bench.epoch_batches(model, "cuda", quick=False) == (None, None)


def test_a_whole_epoch_is_every_image(tmp_path):
    task = prepare([*SMALL, "data.val_size=0"], batches=None, evaluated=None, folder=tmp_path)
    assert (task.examples["train"], task.examples["test"]) == (300, 60)


@pytest.mark.skipif(not find_spec("lightning"), reason="Lightning is not installed")
def test_setting_up_a_trainer_is_no_part_of_lightnings_steps(task, monkeypatch):
    contestant = peers.Lightning(task, "fp32")
    make, setting_up = contestant._trainer, 0.5
    monkeypatch.setattr(contestant, "_trainer", lambda **more: (time.sleep(setting_up), make(**more))[1])
    assert 0 < contestant.step_seconds(2) < setting_up


def test_short_steps_are_repeated_until_they_take_the_time_that_was_asked_for(task):
    for each in (1e-5, 0.3, 7.0):
        contestant = Clockwork(task, "fp32")
        contestant.each = each
        count = measure.step_count(contestant, seconds=4.0)
        assert 4.0 <= count * each < 4.0 + each + 1e-9


def test_contestants_train_copies_of_their_own(task):
    before = [parameter.clone() for parameter in task.initial.parameters()]
    contestants.Ours(task, "fp32").steps(2)
    contestants.Course(task, "fp32").steps(2)
    assert all(map(torch.equal, task.initial.parameters(), before))


def test_a_contestant_that_fails_is_a_result_and_the_others_go_on(task):
    kinds = [OURS, BROKEN, COURSE]
    results = list(measure.measure(task, kinds, repeats=2, seconds=0.01, command=False))
    errors = {(result.measure, result.contestant): result.error for result in results if result.error}
    assert errors == {("step", "broken"): "RuntimeError: the cause"}
    assert all(len(result.seconds) == 2 for result in results if not result.error)
    assert [cells[2] for cells in rows([result.as_dict() for result in results]) if "broken" in cells[1]] == ["failed"]


def test_others_train_in_a_process_of_their_own_and_their_end_is_not_ours(task, tmp_path):
    with elsewhere(task) as process:
        here, there = contestants.Course(task, "fp32"), Apart(contestants.Course, task.work, "fp32", process=process)
        for contestant in (here, there):
            contestant.steps(3)
            contestant.epoch()
        assert process.submit(get_start_method).result() == get_start_method(), "loaders begin as they do for a user"
        assert there.losses == pytest.approx(here.losses)
        assert there.command(tmp_path) == here.command(tmp_path)
        kinds = [(Ends, "fp32"), OURS, COURSE]
        results = list(measure.measure(task, kinds, repeats=1, seconds=0.01, command=True, apart=process))
    ended = {result.contestant for result in results if result.error and "BrokenProcessPool" in result.error}
    assert ended == {"course loop", "ends"}
    assert [len(result.seconds) for result in results if result.contestant == "dltrain"] == [1, 1, 1]


def test_where_we_fail_the_others_go_on_without_ratios(task, tmp_path, capsys, monkeypatch):
    ours_broken = (OursBroken, "fp32")
    monkeypatch.setattr(bench, "QUICK_EPOCHS", {"mlp": (2, 1)})
    monkeypatch.setattr(bench, "contestants", lambda precision, quick: [ours_broken, COURSE])
    assert main(["bench", "--quick", "--repeats", "1", "--output", str(tmp_path / "results"), *SMALL]) == 1
    printed = capsys.readouterr().out
    assert "RuntimeError: out of luck" in printed
    record = json.loads(next((tmp_path / "results").iterdir()).read_text())
    cells = {(row[0], row[1]): row for row in rows(record["results"])}
    assert cells["step", "dltrain, fp32"][2] == "failed"
    for kind in ("step", "epoch"):
        assert cells[kind, "course loop, fp32"][4:6] == ("1", "")


def test_a_page_is_written_where_we_failed_and_from_files_of_before(tmp_path, monkeypatch):
    written = runpy.run_path(str(CHECKOUT / "scripts/bench/write_docs.py"))
    failed = [result("dltrain", "fp32", [], error="Error: none"), result("course loop", "fp32", [1.0])]
    failed += [result("course loop", "fp32", [1.0], measure="epoch")]
    counted = {"outputs_per_image": 1000, "parameters": 100, "epoch_images": {"train": 600, "evaluated": 100}}
    good = [
        {**result("dltrain", "fp32", [1.0], measure=kind), **counted, "model": "lenet"} for kind in ("step", "epoch")
    ]
    record = {"date": "2026-01-01", "machine": MACHINE, "results": [*failed, *good]}
    text = written["section"]("fake", record)
    assert "| mlp |  | 1,000 |  |  |" in text, "a floor, and nothing that reaches it"
    assert "**lenet**: batch 10, 96 px; an epoch trains on 600 images and evaluates 100" in text
    monkeypatch.setitem(written["picture"].__globals__, "DOCS", tmp_path)
    for results in (record["results"], failed):
        written["picture"]("fake", {**record, "results": results})
    assert (tmp_path / "fake.png").is_file()


def test_who_is_not_compared_is_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda package: None if package == "timm" else package)
    assert peers.absent().startswith("timm: not installed")
    assert [kind.name for kind in peers.installed()] == ["Lightning"]
    monkeypatch.setattr(peers, "find_spec", lambda package: package)
    assert peers.absent() == ""


def test_a_loss_that_is_not_finite_is_a_failure(task):
    contestant = Clockwork(task, "fp32")
    contestant.steps = lambda count: setattr(contestant, "losses", [float("nan")])
    with pytest.raises(ValueError, match="a loss of nan after 5 steps"):
        measure.checked_loss(contestant)


def test_results_are_written_after_every_model(tmp_path, monkeypatch):
    def measured(name: str, *_: Any, **__: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if name == "lenet":
            raise KeyboardInterrupt
        return MACHINE, [{**result("dltrain", "fp32", [1.0]), "model": name}]

    monkeypatch.setattr(bench, "_measure", measured)
    assert main(["bench", "model=linear", "--output", str(tmp_path)]) == 0
    assert main(["bench", "model=mlp,lenet", "--output", str(tmp_path)]) == 130
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert [each["model"] for each in record["results"]] == ["linear", "mlp"]


def test_models_may_be_measured_one_by_one(tmp_path):
    def record(*models: str, **machine: Any) -> dict[str, Any]:
        results = [{**result("dltrain", "fp32", [1.0]), "model": model} for model in models]
        return {"date": "2026-01-01", "machine": {**MACHINE, **machine}, "results": results}

    def models(seen: dict[str, Any]) -> list[str]:
        path = write_results(tmp_path, "fake", seen, by_model=True)
        return [each["model"] for each in json.loads(path.read_text())["results"]]

    assert models(record("mlp", "lenet")) == ["mlp", "lenet"]
    assert models(record("resnet18")) == ["mlp", "lenet", "resnet18"]
    assert models(record("mlp")) == ["lenet", "resnet18", "mlp"], "the new one takes the old one's place"
    assert models(record("mlp", packages={"torch": "0.1"})) == ["mlp"], "of other versions nothing is kept"


def test_an_override_counts_more_than_the_length_of_an_epoch(tmp_path):
    longer = prepare([*SMALL, "trainer.limit_train_batches=5"], batches=3, evaluated=2, folder=tmp_path)
    assert longer.examples["train"] == 5 * 16


def test_rounds_begin_with_another_contestant_each_time():
    order: list[str] = []
    works = {(name, "fp32"): lambda name=name: order.append(name) or 1.0 for name in "abc"}
    results = {key: Result("mlp", "step", *key, 1) for key in works}
    measure.in_turns(works, results, repeats=3)
    assert order == list("abcbcacab")
    assert results["a", "fp32"].seconds == [1.0] * 3


def test_no_round_begins_that_would_end_too_late_but_for_the_first():
    works = {("a", "fp32"): lambda: time.sleep(0.1) or 0.1}
    results = {("a", "fp32"): Result("mlp", "step", "a", "fp32", 1)}
    for limit, most in ((-1.0, 1), (0.45, 4)):
        results["a", "fp32"].seconds.clear()
        measure.in_turns(works, results, repeats=9, until=time.perf_counter() + limit)
        assert 1 <= len(results["a", "fp32"].seconds) <= most


def test_rates_are_read_from_the_cache_until_they_are_wanted_again(monkeypatch):
    seen = []
    monkeypatch.setattr(machines, "matmul_rate", lambda device, dtype: seen.append(dtype) or 1e12)
    monkeypatch.setattr(machines, "copy_rate", lambda device: 1e10)
    first, second = machines.machine(CPU), machines.machine(CPU)
    assert (first["cached"], second["cached"]) == (False, True)
    assert seen == [torch.float32, torch.bfloat16]
    assert "from the cache" in machine_lines(second)[1]
    assert "from the cache" not in machine_lines(first)[1]
    assert not machines.machine(CPU, again=True)["cached"]
    assert len(seen) == 4


def test_float16_is_measured_on_a_gpu_alone_and_a_rate_that_is_unknown_has_no_floor():
    assert "fp16" in machines.dtypes(torch.device("cuda"))
    assert "fp16" not in machines.dtypes(CPU)
    here = floor(result("dltrain", "fp16", [1.0]), MACHINE)
    assert (here.products, here.share) == (None, None)
    record = {"machine": MACHINE, "results": [result("dltrain", "fp16", [1.0])]}
    assert "allow" not in str(result_table(record, "mlp").title)


def test_the_floor_is_the_slower_of_arithmetic_and_memory():
    counts = {"outputs_per_image": 10_000, "parameters": 1000}
    made = {**result("dltrain", "fp32", [1.0]), **counts}
    moved = 4 * 10_000 * 4 + 6 * 1000 * 4 / 10  # outputs and gradients twice each; weights once a batch
    assert moved_bytes(made) == moved
    assert moved_bytes({**made, "precision": "bf16"}) == 4 * 10_000 * 2 + 6 * 1000 * 4 / 10
    here = floor(made, MACHINE)
    assert (here.rate, here.products, here.memory) == (100, 1000, 1e10 / moved)
    assert here.share == 100 / 1000
    assert floor(made, {**MACHINE, "copy_bytes_per_second": moved}).share == 100


def test_what_a_step_costs_is_told_of_the_network(task):
    assert task.costs["parameters"] == sum(each.numel() for each in task.initial.parameters())
    assert task.costs["outputs_per_image"] >= 32 * 32 + 256 + 10


def test_a_point_of_scaling_that_tells_no_rate_is_an_error_and_what_was_seen_stays(tmp_path, monkeypatch):
    scaling = runpy.run_path(str(CHECKOUT / "scripts/bench/scaling.py"))
    names = scaling["main"].__globals__
    summary = {"steps": 9, "images_per_second": None, "peak_memory_bytes": 1, "device": "cpu", "precision": "fp32"}

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess:
        folder = Path(next(word for word in words if word.startswith("outputs_dir=")).partition("=")[2])
        (folder / "runs/point").mkdir(parents=True)
        rate = None if "data.image_size=28" in words else 100.0
        if "data.image_size=64" in words:
            raise KeyboardInterrupt
        (folder / "runs/point/summary.json").write_text(json.dumps({**summary, "images_per_second": rate}))
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setitem(names, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setitem(names, "RESULTS", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        scaling["main"](["device=cpu"])
    points = json.loads(next(tmp_path.glob("scaling-*.json")).read_text())["points"]["image_size"]
    assert "too short" in points[0]["error"]
    assert points[1]["seconds_per_epoch"] == 600
    assert len(points) == 2


@pytest.mark.parametrize("mode", [[], ["--long"]])
def test_the_script_for_a_gpu_survives_failures_and_passes_words_on(tmp_path, mode):
    said, python = tmp_path / "said", tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$*" >>{said}\necho it says\ncase "$*" in *bench*) exit 7 ;; esac\n')
    python.chmod(0o755)
    for name, status in (("whole", "completed"), ("part", "interrupted")):
        weights = tmp_path / "out/runs/runs" / name / "checkpoints/step-1"
        weights.mkdir(parents=True)
        (weights.parents[1] / "summary.json").write_text(json.dumps({"status": status}, indent=2))
    path = f"{python.parent}:{os.environ['PATH']}"
    words = [CHECKOUT / "scripts/bench/gpu", tmp_path / "out", *mode, "data=synthetic"]
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 1
    commands = [line for line in said.read_text().splitlines() if "dltrain" in line or "scripts" in line]
    assert all(line.endswith("data=synthetic") for line in commands)
    parts = dict(line.split()[:2] for line in (tmp_path / "out/parts.txt").read_text().splitlines() if line)
    assert parts.pop("bench") == "7"
    last = {"fast_resnet18", "best_resnet18"} if mode else {"tests", "tests-timed", "smoke", "speedrun-2"}
    assert last <= {name for name, code in parts.items() if code == "0"}
    runs = tmp_path / "out/runs/runs"
    assert {each.name for each in (runs / "whole").iterdir()} == {"summary.json"}
    assert (runs / "part/checkpoints/step-1").is_dir(), "what was cut off can go on"


def test_the_script_for_a_gpu_does_the_parts_that_are_asked_for(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    path = f"{python.parent}:{os.environ['PATH']}"
    words = [CHECKOUT / "scripts/bench/gpu", tmp_path / "out", "--only", "smoke,profile", "data=synthetic"]
    subprocess.run(words, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    parts = (tmp_path / "out/parts.txt").read_text().split("\n")
    assert [line.split()[0] for line in parts if line] == ["part", "smoke", "profile"]
    words[3] = "smoke,profil"
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert (done.returncode, "--only profil: there is no such part" in done.stderr) == (2, True)
    assert "== smoke" not in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_script_for_a_gpu_says_in_one_line_what_is_missing(tmp_path):
    words = [CHECKOUT / "scripts/bench/gpu", tmp_path / "out", "data.root=/nowhere"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(words, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 78
    assert "\nmissing, without which nothing is measured: a CUDA device" in done.stdout
    assert not (tmp_path / "out").exists()
    done = subprocess.run([words[0], "--long"], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert (done.returncode, done.stderr.split(":")[0]) == (2, "name a folder for the results first")


def test_a_command_leaves_weights_and_a_picture(task, tmp_path):
    for kind, weights in ((contestants.Ours, "*.safetensors"), (contestants.Course, "*.pt")):
        output = tmp_path / "out" / kind.name
        measure.process(kind(task, "fp32").command(output))()
        assert list(output.rglob(weights))
        assert list(output.rglob("curves.png"))


def test_the_commands_train_the_same_network(tmp_path):
    words = [*SMALL, "model=mlp", "model.hidden_sizes=[7]", "model.norm=batch", "device.threads=1"]
    work = prepare(words, batches=2, evaluated=1, folder=tmp_path / "data").work
    course = contestants.Course(work, "fp32").command(tmp_path / "out")
    measure.process(course)()
    found = {name: value.shape for name, value in torch.load(tmp_path / "out/weights.pt").items()}
    assert found == {name: value.shape for name, value in work.initial.state_dict().items()}
    assert course[course.index("--threads") + 1] == str(torch.get_num_threads())


def test_minutes_of_none_begin_no_second_round(monkeypatch):
    seen = []

    def measured(*_: Any, until: float, **__: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        seen.append(until - time.perf_counter())
        return MACHINE, [result("dltrain", "fp32", [1.0])]

    monkeypatch.setattr(bench, "_measure", measured)
    for words in (["--minutes", "0"], ["--quick"], []):
        assert main(["bench", "model=mlp", *words]) == 0
    assert seen[0] < 1 < 400 < seen[1] < 480 < seen[2]


def test_rates_and_ratios_are_of_medians():
    ours = result("dltrain", "fp32", [1.0, 2.0, 9.0], 2.3)
    theirs = result("course loop", "fp32", [8.0, 6.0, 16.0], 2.3, images=200)
    assert list(rows([ours, theirs])) == [
        ("step", "dltrain, fp32", "50", "11-100", "3", "", "2.30000"),
        ("step", "course loop, fp32", "25", "12-33", "3", "2.00 x", "2.30000"),
    ]


def test_float32_losses_are_compared_with_ours_in_float32():
    chosen, ours = result("dltrain", "bf16", [1.0], 2.4), result("dltrain", "fp32", [2.0], 2.3)
    good, odd = result("course loop", "fp32", [4.0], 2.3), result("odd", "fp32", [4.0], 2.31)
    coarse = result("course loop", "bf16", [4.0], 2.31)
    cells = list(rows([chosen, ours, good, odd, coarse]))
    assert [each[6] for each in cells] == ["2.40000", "2.30000", "2.30000", "2.31000 differs", "2.31000"]
    assert [each[5] for each in cells] == ["", "2.00 x", "4.00 x", "4.00 x", "4.00 x"], "over the precision we chose"
    assert [each[6] for each in rows([chosen, odd])] == ["2.40000", "2.31000"], "nothing to compare with"


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
