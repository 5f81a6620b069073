"""`dltrain runs` and `dltrain diff`: filters, broken folders, speed, deleting, and what differs."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import LITTLE

import dltrain
from dltrain.cli import main
from dltrain.run import filter as filters
from dltrain.run import prune
from dltrain.run.folder import RunError, find
from dltrain.run.lock import Lock, held
from dltrain.verbs.completion import candidates
from dltrain.verbs.runs import fitted

RUNS, SWEEPS = Path("outputs/runs"), Path("outputs/sweeps")
CONFIG = """\
# data=synthetic model={model} optim={optim} schedule=constant trainer=default
name: null
seed: {seed}
optim:
  name: Adam
  lr: {lr}
data:
  batch_size: 128
model:
  name: {model}
trainer:
  epochs: 3
"""


def made(name, folder=RUNS, *, model="mlp", optim="adam", lr=0.1, seed=0, age=0, **summary):
    """A made-up run; `status=None` leaves the summary out."""
    run = folder / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG.format(model=model, optim=optim, lr=lr, seed=seed))
    (run / "metrics.jsonl").write_text("x" * 1000)
    content = {
        "status": "completed",
        "model": "any",
        "epochs": 3,
        "steps": 30,
        "train": None,
        "val": None,
        "test": None,
    }
    content |= {"best": None, "seconds": 12.34, "device": "cpu", "bit_exact": True, "cause": None, **summary}
    if content["status"]:
        (run / "summary.json").write_text(json.dumps(content))
    for path in run.iterdir():
        os.utime(path, (time.time() - age,) * 2)
    return run


def accuracy(value):
    return {"loss": 1 - value, "accuracy": value}


def swept(name="grid", jobs=(0.8, 0.9), listed=None):
    sweep = SWEEPS / name
    for number, value in enumerate(jobs):
        made(str(number), sweep, optim=("sgd", "adam")[number % 2], val=accuracy(value))
    lines = [json.dumps({"job": number, "overrides": []}) + "\n" for number in range(listed or len(jobs))]
    (sweep / "sweep.jsonl").write_text("".join(lines))
    return sweep


def shown(capsys, *words, code=0):
    capsys.readouterr()
    assert main(["runs", *words]) == code
    return capsys.readouterr().out


def names(capsys, *words):
    return {run["name"] for run in json.loads(shown(capsys, *words, "--json"))["runs"]}


@pytest.fixture
def few():
    """Three runs: a good one, a bad one, and one that knows no accuracy."""
    made(
        "20261121-143511-good-adam",
        val=accuracy(0.93),
        age=30,
        best={"step": 1, "split": "val", "metric": "accuracy", "value": 0.95},
    )
    made("bad", model="resnet18", optim="sgd", lr=0.5, seed=2, val=accuracy(0.5), age=20)
    made("numberless", model="lenet", status="diverged", val={"loss": None, "accuracy": None}, cause="NaN", age=10)


GOOD, BAD, NONE = "20261121-143511-good-adam", "bad", "numberless"
MEANT = [
    ("model==mlp", {GOOD}),
    ("model=='mlp'", {GOOD}),
    ("model!=mlp", {BAD, NONE}),
    ("model in [mlp, lenet]", {GOOD, NONE}),
    ("model in (mlp,lenet) and status==completed", {GOOD}),
    ("model not in [mlp]", {BAD, NONE}),
    ("val_accuracy>0.92", {GOOD}),
    ("val_accuracy>0.94", {GOOD}),  # of the best weights
    ("val.accuracy>0.94", set()),  # of the last ones
    ("val_accuracy<=.5", {BAD}),
    ("0.4 < val_accuracy < 0.9", {BAD}),
    ("0.9 > val_accuracy", {BAD}),
    ("val_accuracy<1", {GOOD, BAD}),
    ("val_accuracy!=1", {GOOD, BAD}),
    ("not val_accuracy>0.92", {BAD}),
    ("not (status==completed and val_accuracy>0.92)", {BAD, NONE}),
    ("val_accuracy==null", {NONE}),
    ("val_accuracy!=null", {GOOD, BAD}),
    ("val_accuracy>-1e3", {GOOD, BAD}),
    ("val_accuracy>banana", set()),
    ("not val_accuracy>banana", set()),
    ("model==3", set()),
    ("epochs=='3'", set()),
    ("epochs==3", {GOOD, BAD, NONE}),
    ("bit_exact==true", {GOOD, BAD, NONE}),
    ("bit_exact==1", set()),
    ("val_loss<val_accuracy", {GOOD}),
    ("optim.lr>=0.5", {BAD}),
    ("optim.lr in [0.1, 7]", {GOOD, NONE}),
    ("seed==2", {BAD}),
    ("data.batch_size==128 or seed==7", {GOOD, BAD, NONE}),
    ("name==20261121-143511-good-adam", {GOOD}),
    ("cause==NaN", {NONE}),
    ("when>2000-01-01", {GOOD, BAD, NONE}),
    ("model==mlp or model==lenet and val_accuracy>0", {GOOD}),
    ("(model==mlp or model==resnet18) and val_accuracy<0.9", {BAD}),
]


@pytest.mark.parametrize(("text", "expected"), MEANT)
def test_a_filter_means_the_runs_that_it_says(text, expected, few, capsys):
    assert names(capsys, text) == expected
    assert names(capsys, *text.split(" ")) == expected


REFUSED = [
    ("__import__('os').system('touch hacked')", 2, "cannot read the filter"),
    ("__import__('os')", 2, "a part of it is no comparison"),
    ("'a' 'b'==1", 2, "neither a name"),
    ("model==__import__('os')", 2, "neither a name"),
    ("open('hacked','w')==1", 2, "neither a name"),
    ("().__class__.__bases__==1", 2, "cannot read the filter"),
    ("''.join.__class__==1", 2, "neither a name"),
    ("model.__class__==1", 78, "unknown name model.__class__"),
    ("model.__class__.__mro__[1]==1", 2, "neither a name"),
    ("[x for x in y]==1", 2, "cannot read the filter"),
    ("(lambda: 1)==1", 2, "cannot read the filter"),
    ("model==f'{x}'", 2, "cannot read the filter"),
    ("model==b'mlp'", 2, "cannot read the filter"),
    ("epochs==9**999999", 2, "cannot read the filter"),
    ("epochs if epochs else epochs", 2, "is no comparison"),
    ("(x:=1)==1", 2, "cannot read the filter"),
    ("model is mlp", 2, "'is' is not offered"),
    ("model==[mlp]", 2, "'in' takes a list"),
    ("model in mlp", 2, "'in' takes a list"),
    ("model in [[mlp]]", 2, "neither a name"),
    ("model in [*mlp]", 2, "cannot read the filter"),
    ("(" * 500 + "epochs==3" + ")" * 500, 2, "cannot read the filter"),
    ("not " * 60 + "epochs==3", 2, "too deeply nested"),
    ("not " * 2400 + "epochs==3", 2, "too deeply nested"),
    ("epochs==3 and " * 2000 + "epochs==3", 2, "longer than 10,000"),
    ("model==" + "a." * 100 + "b and modle==1", 78, "unknown name modle"),
    ("model=mlp", 2, "= sets a value, == compares"),
    ("val_accuracy", 2, "val_accuracy is no comparison"),
    ("model==mlp and", 2, "cannot read the filter"),
    ("model==mlp; model==mlp", 2, "cannot read the filter"),
    ("model=='mlp", 2, "cannot read the filter"),
    ("model==\0", 2, "cannot read the filter"),
    ("modle==mlp", 78, "unknown name modle: did you mean model?"),
    ("val_acuracy>0.9", 78, "did you mean val_accuracy"),
    ("0.9<val_acuracy", 78, "did you mean val_accuracy"),
    ("0<val_acuracy<1", 78, "did you mean val_accuracy"),
    ("lr>0.1", 78, "did you mean optim.lr?"),
    ("optim.lrr>0.1", 78, "did you mean optim.lr"),
    ("xyzzy==1", 78, "there are: name, sweep, status"),
]


@pytest.mark.parametrize(("text", "code", "words"), REFUSED, ids=[text[:40] for text, *_ in REFUSED])
def test_what_no_filter_is_gets_one_line_and_runs_nothing(text, code, words, few, capsys):
    assert main(["runs", text]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
    assert "unforeseen" not in err
    assert not Path("hacked").exists()


def test_a_filter_is_read_the_same_whoever_asks():
    assert filters.read("optim.lr>0.1 and model==mlp").names == ("optim.lr", "model")
    with pytest.raises(RunError, match="cannot read the filter"):
        filters.read("")


def test_a_table_has_the_newest_last(few, capsys):
    lines = shown(capsys).splitlines()
    assert lines[0].split() == [
        "name",
        "status",
        "model",
        "optim",
        "epochs",
        "val",
        "accuracy",
        "test",
        "accuracy",
        "seconds",
        "when",
    ]
    assert [line.split()[0] for line in lines[1:]] == [GOOD, BAD, NONE]
    assert lines[1].split()[1:] == ["completed", "mlp", "adam", "3", "0.9500", "-", "12.3", *lines[1].split()[-2:]]


def test_losses_stand_where_there_is_no_accuracy(capsys):
    made("run", val={"loss": 0.25, "accuracy": None})
    assert "  loss 0.2500  " in shown(capsys)


def test_nothing_to_list_is_said(capsys):
    assert shown(capsys) == "no runs in outputs\n"
    assert shown(capsys, "outputs_dir=elsewhere") == "no runs in elsewhere\n"
    made("run")
    assert shown(capsys, "model==lenet") == "nothing in outputs matches\n"
    assert json.loads(shown(capsys, "model==lenet", "--json")) == {"runs": [], "sweeps": []}


@pytest.mark.parametrize(
    ("key", "expected"), [("val_accuracy", [NONE, BAD, GOOD]), ("-val_accuracy", [NONE, GOOD, BAD])]
)
def test_runs_and_jobs_are_sorted_into_one_list(key, expected, few, capsys):
    assert [line.split()[0] for line in shown(capsys, f"--sort={key}").splitlines()[1:]] == expected
    swept(jobs=(0.7,))
    assert "grid/0" in shown(capsys, "--sort", "optim.lr")
    assert main(["runs", "--sort", "val_acc"]) == 78
    assert "did you mean val_accuracy" in capsys.readouterr().err


def test_a_sweep_is_a_line_and_its_jobs_are_shown_when_asked(capsys):
    swept()
    (line,) = [line for line in shown(capsys).splitlines() if line.startswith("grid")]
    assert line.split()[:7] == ["grid", "completed", "2", "of", "2", "mlp", "adam,sgd"]
    assert "grid/1" not in shown(capsys)
    assert "grid/1" in shown(capsys, "--jobs")
    asked = shown(capsys, "val_accuracy>0.85")
    assert "grid/1" in asked
    assert "grid/0" not in asked
    (line,) = shown(capsys, "name==grid").splitlines()[1:]
    assert line.split()[0] == "grid"
    assert main(["runs", "name==grid", "--prune", "--yes"]) == 0
    assert "0 of its 2 jobs match" in capsys.readouterr().out
    assert names(capsys, "sweep==grid") == names(capsys, "name in [grid/0,grid/1]") == {"grid/0", "grid/1"}


@pytest.mark.parametrize(
    ("ledger", "status", "completed"),
    [(4, "unfinished", "2 of 4"), (2, "completed", "2 of 2"), (1, "completed", "2 of 2")],
)
def test_jobs_without_a_folder_are_waiting(ledger, status, completed, capsys):
    swept(listed=ledger)
    assert f"grid  {status}  {completed}" in shown(capsys)
    waiting = {f"grid/{number}" for number in range(2, ledger)}
    assert names(capsys, "status==waiting") == waiting


BROKEN = [
    ("summary.json", "{", "summary.json is damaged"),
    ("summary.json", "[]", "summary.json is damaged"),
    ("summary.json", '{"status": 3}', "summary.json is damaged"),
    ("summary.json", "[" * 100_000, "summary.json is damaged"),
    ("config.yaml", None, "config.yaml is missing"),
    ("config.yaml", "", "config.yaml is damaged"),
    ("config.yaml", CONFIG[:150], "config.yaml is damaged"),
    ("config.yaml", "\0\n" * 100, "config.yaml is damaged"),
]


@pytest.mark.parametrize(("file", "content", "reason"), BROKEN)
def test_a_broken_folder_is_listed_as_such(file, content, reason, few, capsys):
    run = made("broken")
    (run / file).unlink() if content is None else (run / file).write_text(content)
    listed = shown(capsys)
    assert f"broken: {reason}" in listed
    assert GOOD in listed
    assert names(capsys, "status==broken") == {"broken"}
    assert names(capsys, "optim.lr>0") == {GOOD, BAD, NONE}


def test_what_is_odd_in_a_summary_is_borne(capsys):
    run = made("odd", val=3, test="x", train=[1], best={"step": []}, seconds="long", epochs=None)
    assert "odd   completed" in shown(capsys)
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"steps": 30', '"steps": NaN, "parameters": Infinity'))
    assert names(capsys, "steps!=3 or parameters>0") == set()
    (run / "config.yaml").write_text(CONFIG.replace("lr: {lr}", "lr: [1"))
    made("sound")
    assert "broken" in shown(capsys, "optim.lr==1 or status==broken")


def test_folders_that_hold_nothing_and_odd_names_are_listed_in_lines_of_their_own(capsys):
    (RUNS / "not\na\x1b[31mrun").mkdir(parents=True)
    (RUNS / ".hidden").mkdir()
    (RUNS / "file").write_text("")
    (SWEEPS / "empty").mkdir(parents=True)
    listed = shown(capsys)
    assert "not?a?[31mrun: none of a run's files is there" in listed
    assert "empty: sweep.jsonl is missing or damaged" in listed
    assert listed.count("\n") == 5
    assert "hidden" not in listed
    assert "file" not in listed.splitlines()


def test_a_run_without_a_result_is_unfinished_or_running(capsys):
    run = made("run", status=None)
    assert names(capsys, "status==unfinished") == {"run"}
    with Lock() as lock:
        lock.take(run)
        assert names(capsys, "status==running") == {"run"}
    assert names(capsys, "status==unfinished") == {"run"}
    assert not held(run)


def test_a_glance_at_a_lock_does_not_keep_its_owner_away():
    run = made("run")
    program = f"""
import sys, time; from pathlib import Path; from dltrain.run.lock import held
run = Path({str(run.resolve())!r}); print(held(run), flush=True)
while True: held(run); time.sleep(0.001)
"""
    with Lock() as lock:
        lock.take(run)
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "True\n"
    try:
        for _ in range(300):
            with Lock() as lock:
                lock.take(run)
    finally:
        process.kill()
        process.communicate()


def test_a_thousand_runs_take_a_moment_and_neither_torch_nor_hydra():
    run = made("0", val=accuracy(0.5))
    for number in range(1, 1000):
        shutil.copytree(run, RUNS / str(number))
    program = """
import sys; from dltrain.cli import main
assert main(["runs"]) == 0 and main(["runs", "model==mlp and val_accuracy>0.4"]) == 0
print(sorted({"torch", "hydra", "omegaconf", "numpy", "rich", "yaml"} & set(sys.modules)))
assert main(["diff", "1", "2"]) == 0 and main(["runs", "name=='1' and optim.lr==0.1"]) == 0
print(sorted({"torch", "hydra", "omegaconf"} & set(sys.modules)))
"""
    environment = {"PYTHONPATH": str(Path(dltrain.__file__).parents[1])}
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert process.stdout.count("\n[]\n") == 2, process.stderr
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dltrain", "runs"], capture_output=True, env=environment, check=True)
    assert time.perf_counter() - started < 3, "0.2 s on an idle machine"


def test_pruning_shows_first_and_deletes_when_told(few, capsys):
    before = sorted(Path("outputs").rglob("*"))
    said = shown(capsys, "val_accuracy<0.9", "--prune")
    assert f"bad   completed  {prune.size(RUNS / BAD):,}" in said
    assert "1 to delete, 1.41 kB; nothing was deleted: --yes does it" in said
    assert sorted(Path("outputs").rglob("*")) == before
    assert "deleted 1, 1.41 kB freed" in shown(capsys, "val_accuracy<0.9", "--prune", "--yes")
    assert {path.name for path in RUNS.iterdir()} == {GOOD, NONE}
    assert "nothing to delete" in shown(capsys, "val_accuracy<0.9", "--prune", "--yes")


@pytest.mark.parametrize(
    "words", [["--prune"], ["--prune", "--yes"], ["outputs_dir=outputs", "--prune", "--yes"], ["--yes"],
              ["status==failed", "--yes"], ["status==failed", "--prune", "--json"]]
)  # fmt: skip
def test_pruning_needs_a_filter(words, few, capsys):
    assert main(["runs", *words]) == 2
    assert len(list(RUNS.iterdir())) == 3


def test_a_run_at_work_is_spared(few, capsys, monkeypatch):
    with Lock() as lock:
        lock.take(RUNS / NONE)
        assert "it is running" in shown(capsys, "epochs==3", "--prune")
        late = Lock()
        monkeypatch.setattr("dltrain.verbs._prune.size", lambda folder: late.descriptor or late.take(RUNS / BAD) or 1)
        said = shown(capsys, "epochs==3", "--prune", "--yes")
        late.release()
    assert "kept: outputs/runs/bad is in use by process" in said, "it began to work after the list was made"
    assert {path.name for path in RUNS.iterdir()} == {BAD, NONE}


def test_a_sweep_goes_as_a_whole_or_not_at_all(capsys):
    sweep = swept()
    assert "1 of its 2 jobs match" in shown(capsys, "val_accuracy>0.85", "--prune", "--yes")
    assert len(list(sweep.iterdir())) == 3
    with Lock() as lock:
        lock.take(sweep / "1")
        assert "kept" in shown(capsys, "sweep==grid", "--prune", "--yes")
        with pytest.raises(RunError, match="in use"):
            prune.delete(sweep, [sweep / "0", sweep / "1"])
    assert "deleted 1" in shown(capsys, "sweep==grid", "--prune", "--yes")
    assert list(SWEEPS.iterdir()) == []


def test_a_sweep_that_a_job_enters_at_the_last_instant_is_put_back(monkeypatch):
    sweep, answers = swept(), iter([False, False, False, True])
    monkeypatch.setattr(prune, "held", lambda folder: next(answers))
    with pytest.raises(RunError, match="in use"):
        prune.delete(sweep, [sweep / "0", sweep / "1"])
    assert [path.name for path in SWEEPS.iterdir()] == ["grid"]
    assert (sweep / "1/summary.json").is_file()


def test_a_sweep_with_jobs_to_come_is_kept(capsys):
    swept(listed=3)
    assert "2 of its 3 jobs match" in shown(capsys, "status==completed", "--prune", "--yes")
    assert (SWEEPS / "grid/1").is_dir()


def test_a_deletion_cut_short_lists_nothing_half_and_is_finished_later(few, capsys, monkeypatch):
    def cut_short(folder):
        (folder / "summary.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dltrain.run.prune.shutil.rmtree", cut_short)
        assert main(["runs", "name==bad", "--prune", "--yes"]) == 130
    assert names(capsys) == {GOOD, NONE}
    assert "left by a deletion" in shown(capsys, "name==bad", "--prune")
    assert "deleted 1" in shown(capsys, "name==bad", "--prune", "--yes")
    assert {path.name for path in RUNS.iterdir()} == {GOOD, NONE}


def test_a_sweep_without_jobs_is_listed_and_can_be_deleted(few, capsys):
    (SWEEPS / "none").mkdir(parents=True)
    (SWEEPS / "none/sweep.jsonl").write_text('{"event": "sweep", "command": {"words": []}}\n')
    (SWEEPS / "foreign").mkdir()
    assert "none     broken" in shown(capsys, "status==broken")
    assert "kept: outputs/sweeps/foreign: it has no list" in shown(capsys, "status==broken", "--prune", "--yes")
    assert not (SWEEPS / "none").exists()
    assert (SWEEPS / "foreign").exists()


def test_what_is_no_run_is_not_deleted(few, capsys):
    (RUNS / "notes").mkdir()
    (RUNS / "notes/thesis.tex").write_text("years of work")
    made("elsewhere", Path("far"))
    (RUNS / "link").symlink_to(Path("far/elsewhere").resolve())
    said = shown(capsys, "status!=nothing", "--prune", "--yes")
    assert "kept: outputs/runs/notes: it holds nothing of a run" in said
    assert "kept: outputs/runs/link: it is a link" in said
    assert {path.name for path in RUNS.iterdir()} == {"notes", "link"}
    assert Path("far/elsewhere/summary.json").is_file()


def test_diff_shows_what_differs_and_nothing_else(capsys):
    one, two = made("one", val=accuracy(0.9)), made("two", lr=0.2, val=accuracy(0.8))
    for run, version in ((one, "2.10"), (two, "2.11")):
        facts = {"command": [version], "packages": {"torch": version, "numpy": "2"}, "data_fingerprint": "ab"}
        (run / "environment.json").write_text(json.dumps(facts))
    assert main(["diff", "one", str(two)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["of", "key", "one", str(two)],
        ["settings", "optim.lr", "0.1", "0.2"],
        ["result", "val.loss", "0.1", "0.2"],
        ["result", "val.accuracy", "0.9", "0.8"],
        ["environment", "packages.torch", "2.10", "2.11"],
    ]
    assert main(["diff", "one", "two", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"optim.lr": [0.1, 0.2]}
    assert found["a"] == "outputs/runs/one"


def test_diff_of_a_run_with_its_like_says_so_in_one_line(capsys):
    made("one")
    shutil.copytree(RUNS / "one", "elsewhere/runs/two")
    assert main(["diff", "outputs/runs/one", "two", "outputs_dir=elsewhere"]) == 0
    assert capsys.readouterr().out == "outputs/runs/one and two: nothing differs\n"


def test_diff_takes_jobs_of_sweeps_and_bears_what_is_missing(capsys):
    swept()
    made("run", status=None, optim="sgd")
    assert find("grid/1") == SWEEPS / "grid/1"
    assert main(["diff", "grid/1", "run"]) == 0
    assert "status        completed  -" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["one"], 2, "takes two runs"),
        (["one", "one", "one"], 2, "takes two runs"),
        (["one", "nothing"], 78, "no run 'nothing': neither a run folder nor a name below outputs/runs or outputs/sw"),
        (["grid", "grid"], 78, "outputs/sweeps/grid is a sweep: name one of its jobs, such as grid/0"),
        (["grid/0", "grid/7"], 78, "outputs/sweeps/grid/7 is no run: that job was refused or has not begun"),
        (["one", "damaged"], 78, "cannot be read"),
    ],
)
def test_diff_refuses_in_one_line(words, code, message, capsys):
    made("one")
    swept()
    (made("damaged") / "config.yaml").write_text("[1")
    assert main(["diff", *words]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_real_runs_are_listed_and_compared(capsys):
    words = [*LITTLE, "model=mlp", "model.hidden_sizes=[8]", "trainer.epochs=1", "trainer.limit_train_batches=2"]
    assert main([*words, "name=one"]) == 0
    assert main([*words, "name=two", "data.num_train=600"]) == 0
    assert names(capsys, "model==mlp and val_accuracy>=0 and data.num_train==700 and device.name==cpu") == {"one"}
    assert main(["diff", "one", "two"]) == 0
    said = capsys.readouterr().out
    assert "settings     data.num_train         700" in said
    assert "environment  data_fingerprint" in said
    assert "prune" not in said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dltrain resume ", ["grid/", "run"]),
        ("dltrain diff run grid/", ["grid/0", "grid/1"]),
        ("dltrain runs val_a", ["val_accuracy=="]),
        ("dltrain runs name==r", ["name==run"]),
        ("dltrain runs name==grid/", ["name==grid/0", "name==grid/1"]),
        ("dltrain runs sweep==", ["sweep==grid"]),
        ("dltrain runs status==comp", ["status==completed"]),
        ("dltrain runs model==resnet3", ["model==resnet34"]),
        ("dltrain runs --p", ["--prune"]),
        ("dltrain diff --j", ["--json"]),
    ],
)
def test_tab_completes_runs(line, expected):
    made("run")
    swept()
    assert candidates(line) == expected


@pytest.mark.parametrize(("width", "kept"), [(None, 4), (60, 4), (44, 3), (20, 2)])
def test_a_narrow_terminal_leaves_out_what_matters_least(width, kept):
    columns = {"name": "left", "val accuracy": "right", "seconds": "right", "when": "left"}
    line = {"name": "a-run", "val accuracy": "0.9", "seconds": "12.0", "when": "2026-01-01 12:00"}
    made = fitted(columns, [line], width=width)
    assert len(re.split(r" {2,}", made[0])) == kept
    assert width is None or len(made[1]) <= width
