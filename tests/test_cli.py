"""The command line: verbs, flags in any order, help, completion, exit codes, and the errors in one line."""

import argparse
import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import LITTLE

import dltrain
from dltrain.cli import main
from dltrain.config.errors import ConfigError
from dltrain.config.hydra_cli import lazy_help_allowed
from dltrain.data import idx_file
from dltrain.data.dataset import DataError
from dltrain.verbs import verbs
from dltrain.verbs.completion import FLAGS_OF, candidates

FEW = shlex.join(LITTLE)
REFUSED = [  # a command line, its exit code, and what its one line must say
    ("model=lent", 78, "unknown model 'lent': did you mean lenet?"),
    ("model=xyz", 78, "unknown model 'xyz': there are: densenet, "),
    ("model=null", 78, "unknown model 'null'"),
    ("model=[lenet,mlp]", 78, "unknown model"),
    ("optim={lr:1}", 78, "unknown optim"),
    ("logger=wandbb", 78, "unknown logger 'wandbb': did you mean wandb?"),
    ("logger=[tensorboard,mlfow]", 78, "unknown logger 'mlfow': did you mean mlflow?"),
    ("logger=[tensorboard,null]", 78, "unknown logger 'null'"),
    ("logger=[tensorboard,wandb] logger.wandb.projct=x", 78, "did you mean logger.wandb.project"),
    ("logger=tensorboard logger.wandb.project=x", 78, "there are: logger.tensorboard.name"),
    ("logger.wandb.project=x", 78, "logger is null; choose one first, as in logger=NAME"),
    ("experiment=nope", 78, "unknown experiment 'nope'"),
    ("modle=lenet", 78, "unknown key modle: did you mean model=lenet?"),
    ("lr=0.1", 78, "unknown key lr: did you mean optim.lr=0.1?"),
    ("optim.lrr=1", 78, "unknown key optim.lrr: did you mean optim.lr"),
    ("model.hidden_sizes=[8]", 78, "unknown key model.hidden_sizes: what is chosen has none; try model=mlp"),
    ("model.xyzzy=8", 78, "there are: model.weights, model.name, model.norm, model.activation, model.pool"),
    ("model.norm.kind=1", 78, "unknown key model.norm.kind"),
    ("logger.name=x", 78, "logger is null; choose one first, as in logger=NAME"),
    ("+model._target_=os.system", 78, "unknown key model._target_"),
    ("model@other=lenet", 78, "there is no @"),
    ("hydra.run.dir=x", 78, "Hydra's own settings are not offered"),
    ("optim.lr=banana", 78, "optim.lr=banana: must be a number"),
    ("optim.lr=-1", 78, "optim.lr=-1: must be above 0"),
    ("optim.lr=nan", 78, "optim.lr=NaN: must be finite"),
    ("trainer.epochs=0", 78, "trainer.epochs=0: must be at least 1"),
    ("data.image_size=5", 78, "data.image_size=5: must be at least 28"),
    ("name=../elsewhere", 78, "name=../elsewhere: must be 1 to 80"),
    ("name='\"a\nb\"'", 78, "name=a b: must be 1 to 80"),
    ("outputs_dir='${oc.env:HOME}'", 78, "resolvers are not offered"),
    ("optim.lr=1,2", 78, "several values make a sweep: add -m"),
    ("model=lenet,mlp", 78, "several values make a sweep: add -m"),
    ("~optim", 78, "nothing can be deleted"),
    ("--config-dir nowhere", 78, "--config-dir nowhere: no such folder"),
    ("--config-name nope", 78, "'nope'"),
    ("--cfg job --package nope", 78, "--package nope: there is nothing"),
    ("-m optim.lr=interval(0,1)", 78, "an interval has no list of values"),
    ("-m model=lenet,lent", 78, "unknown model 'lent'"),
    ("model=lenet optim.lr", 2, "cannot read 'optim.lr': an override has the form key=value"),
    ("=3", 2, "an override has the form key=value"),
    ("optim.lr=[1", 2, "cannot read 'optim.lr=[1'"),
    ("data.root=/a=b", 2, "data.root='\"/a=b\"'"),
    ("--lr 0.1", 2, "optim.lr=0.1"),
    ("--optim.lr=0.1", 2, "an option is written without dashes: optim.lr=0.1"),
    ("model=mlp --batch-size 8", 2, "data.batch_size=8"),
    ("-x", 2, "unknown flag -x"),
    ("--cfg", 2, "expected one argument"),
    ("--cfg jobs", 2, "invalid choice: 'jobs'"),
    ("--config-path elsewhere", 2, "use --config-dir"),
    ("trian", 2, "unknown verb 'trian': did you mean train?"),
    ("help trian", 2, "did you mean train?"),
    ("data", 2, "takes fetch or check"),
    ("data chekc", 2, "takes fetch or check"),
    ("data check data=nope", 78, "unknown data 'nope'"),
    ("completion tcsh", 2, "there is: bash, zsh, fish"),
    ("-sc uninstall=bash", 2, "there is: bash, zsh, fish"),
    ("data=fashion_mnist data.root=nowhere", 66, "nowhere"),
    ("data=idx", 78, "data.root"),
    ("data=idx data.root=nowhere", 66, "nowhere: no such folder"),
    ("data=idx data.root=nowhere data.class_names=5", 78, "data.class_names=5: must be a list"),
    ("data=cifar10 data.root=nowhere", 66, "nowhere"),
    (f"{FEW} data.batch_size=701", 78, "data.batch_size=701: there are 636 training examples"),
    (f"{FEW} data.val_size=700", 78, "data.val_size=700: the training part has 700 examples"),
    (f"{FEW} data.classes=[0,99]", 78, "data.classes=[0, 99]"),
    (f"{FEW} data.batch_size=1 model=mlp model.norm=batch", 78, "data.batch_size=1: the model cannot train"),
    (f"{FEW} data.image_size=28 model=densenet", 78, "at least 29 pixels a side, not 28"),
    (f"{FEW} model.norm=bogus", 78, "model=lenet: norm must be one of batch"),
    (f"{FEW} model=mlp model.dropout=2", 78, "model.dropout=2: must be below 1"),
    (f"{FEW} model.name=os.system", 78, "model.name=os.system: there are: "),
    (f"{FEW} optim.betas=[0.9]", 78, "optim.betas=[0.9]: must be a list of 2"),
    (f"{FEW} schedule=step schedule.size=0", 78, "schedule=step: size must be 1 epoch or more"),
    (f"{FEW} loss.label_smoothing=2", 78, "label_smoothing=2: must be at most 1"),
    (f"{FEW} augment=mixup augment.alpha=-1", 78, "alpha"),
    (f"{FEW} outputs_dir=blocked/below", 74, "blocked/below/runs: Not a directory"),
]


def said(capsys) -> str:
    """The one line on stderr, where nothing stands on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert err.startswith("dltrain: ")
    return err


@pytest.mark.parametrize(("line", "code", "words"), REFUSED, ids=[line.removeprefix(FEW) for line, _, _ in REFUSED])
def test_bad_input_gets_one_line_an_exit_code_and_no_folder(line, code, words, capsys):
    Path("blocked").write_text("a file where a folder is wanted")
    assert main(shlex.split(line)) == code
    assert words in said(capsys)
    assert {path.name for path in Path().iterdir()} <= {"blocked", "cache"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(capsys):
    assert main([*LITTLE, "device=cuda"]) == 78
    assert "device=cuda: there is no cuda device here; there is: " in said(capsys)


def test_windows_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["--help"]) == 2
    assert "Windows is not supported" in said(capsys)


@pytest.mark.parametrize("position", [0, 2])
def test_debug_shows_the_traceback(position, capsys):
    arguments = ["data", "check", "data=nope"]
    assert main([*arguments[:position], "--debug", *arguments[position:]]) == 78
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "outputs/x"), 74, "outputs/x: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "outputs/y"), 74, "outputs/y: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), 74, "cannot write: Read-only file system"),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            74,
            "No space left",
        ),
        (MemoryError(), 71, "smaller data.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory"), 71, "smaller data.batch_size"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
            71,
            "out of memory",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), 71, "memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "z"), 1, "unforeseen FileNotFoundError"),
        (ZeroDivisionError("by\nzero"), 1, "unforeseen ZeroDivisionError: by (--debug shows where)"),
        (DataError("data gone", exit_code=69), 69, "data gone"),
        (ConfigError("two\nlines"), 78, "two lines"),
    ],
    ids=repr,
)
def test_every_kind_of_error_has_its_exit_code(error, code, words, capsys, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("dltrain.verbs.help.main", fail)
    assert main(["help"]) == code
    assert words in said(capsys)


def shown(capsys, *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_flags_stand_anywhere_among_the_overrides(capsys):
    pieces = ["optim.lr=.1", "--cfg=job", "model=mlp", "--package=model.name"]
    results = {shown(capsys, *order) for order in (pieces, pieces[::-1], pieces[2:] + pieces[:2])}
    assert len(results) == 1
    assert results.pop() == "mlp\n"


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_a_sweep_shows_its_first_job(flag, capsys):
    assert shown(capsys, "model=mlp,lenet", "--cfg", "job", flag, "-p", "model.name") == "mlp\n"


def test_the_config_shown_is_the_one_after_the_presets_rule(capsys):
    chosen = ["experiment=d2l_mlp", "optim=adam", "--cfg", "job", "-p"]
    assert shown(capsys, *chosen, "optim.lr") == "0.001\n"
    assert shown(capsys, *chosen, "data.val_size") == "0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hydra-help"], "Hydra (1."),
        (["--info", "defaults", "optim=sgd"], "optim/sgd"),
        (["train", "--info", "--debug"], "Config search path"),
        (["--cfg", "hydra", "-p", "hydra.job"], "# @package hydra.job"),
    ],
    ids=["--hydra-help", "--info defaults", "--info", "--cfg hydra"],
)
def test_hydra_answers_for_itself_and_writes_nothing(arguments, words, capsys):
    assert words in shown(capsys, *arguments)
    assert list(Path().iterdir()) == []


def test_bad_input_is_refused_before_hydra_is_asked(capsys):
    assert main(["--cfg", "hydra", "model=lent"]) == 78
    assert "did you mean lenet?" in said(capsys)


def test_what_of_a_preset_does_not_apply_is_said_beside_the_configuration(capsys):
    assert main(["experiment=fast_resnet18", "augment=crop_flip_cutmix", "--cfg", "job"]) == 0
    shown = capsys.readouterr()
    assert "the preset's augment.padding does not apply" in shown.err
    assert "note" not in shown.out


def test_hydras_help_needs_its_guard_on_python_3_14(capsys, monkeypatch):
    """There, argparse formats an argument's help when it is added, and wants text; here this is played."""

    def check_help(parser, action):
        if action.help:
            action.help % {}

    def add_argument(parser, *names, add=argparse.ArgumentParser.add_argument, **keywords):
        action = add(parser, *names, **keywords)
        parser._check_help(action)
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check_help, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)
    assert "Hydra (1." in shown(capsys, "--hydra-help")
    assert argparse.ArgumentParser._check_help is check_help
    with lazy_help_allowed(), pytest.raises(TypeError):
        argparse.ArgumentParser().add_argument("--text-is-still-checked", help="%d")
    monkeypatch.setattr("dltrain.config.hydra_cli.lazy_help_allowed", lambda: pytest.MonkeyPatch().context())
    assert main(["--hydra-help"]) == 1
    assert "unforeseen TypeError" in capsys.readouterr().err


def test_the_version(capsys):
    assert shown(capsys, "--version") == f"dltrain {dltrain.__version__}\n"


def test_help_lists_verbs_groups_choices_and_examples(capsys):
    text = shown(capsys, "--help")
    assert text == shown(capsys, "help") == shown(capsys, "-h", "model=mlp") == shown(capsys, "help", "outputs_dir=x")
    for word in (*verbs(), "resnet18", "nesterov", "--config-dir", "dltrain -m model=lenet,mlp"):
        assert word in text


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_help(verb, capsys):
    told = shown(capsys, verb, "--help")
    assert told == shown(capsys, "help", verb) == shown(capsys, "--help", verb)
    line, *_ = told.splitlines()
    assert line == verbs()[verb]
    assert len(line) > 20


def test_help_and_tab_are_quick_and_import_neither_torch_nor_hydra():
    program = """
import sys
from dltrain.cli import main
for words in (["--help"], ["completion", "query"], ["-h", "x=1"], ["resume"], ["--version"], ["help", "data"]):
    main(words)
print(sorted({"torch", "hydra", "omegaconf", "numpy", "rich"} & set(sys.modules)))
"""
    environment = {"COMP_LINE": "dltrain model=", "PYTHONPATH": str(Path(dltrain.__file__).parents[1])}
    started = time.perf_counter()
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert process.stdout.endswith("\n[]\n"), process.stderr
    assert "model=resnet18\n" in process.stdout
    assert time.perf_counter() - started < 5, "0.3 s on an idle machine"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dltrain mod", ["model.", "model="]),
        ("dltrain he", ["help"]),
        ("dltrain model=mlp se", ["seed="]),
        ("dltrain model=lenet, model=re", [f"model=resnet{depth}" for depth in (101, 152, 18, 34, 50)]),
        ("dltrain -m model=lenet,ml", ["model=lenet,mlp"]),
        ("dltrain optim.l", ["optim.lr="]),
        ("dltrain optim=sgd optim.mom", ["optim.momentum="]),
        ("dltrain -m optim=sgd,adam optim.damp", ["optim.dampening="]),
        ("dltrain trainer=smoke trainer.epo", ["trainer.epochs="]),
        ("dltrain trainer.name", []),
        ("dltrain nothing.x", []),
        ("dltrain --conf", ["--config-dir"]),
        ("dltrain --config-dir extra model=ti", ["model=tiny"]),
        ("dltrain --config-dir extra model=tiny model.wi", ["model.width="]),
        ("dltrain --config-dir nowhere model=ml", ["model=mlp"]),
        ("dltrain data ", ["check", "fetch"]),
        ("dltrain data fetch data=cif", ["data=cifar10"]),
        ("dltrain completion b", ["bash"]),
        ("dltrain help comp", ["completion"]),
        ("dltrain report ", ["one", "two"]),
        ("dltrain report outputs_dir=elsewhere ", []),
        ("dltrain xyz=", []),
    ],
)
def test_tab_completes(line, expected):
    for run in ("one", "two", ".draft"):
        (Path("outputs/runs") / run).mkdir(parents=True)
    Path("extra/model").mkdir(parents=True)
    Path("extra/model/tiny.yaml").write_text("name: tiny\nwidth: 3\n")
    assert candidates(line) == expected


def test_tab_offers_groups_keys_and_verbs_first():
    found = candidates("dltrain ")
    assert {"model=", "model.", "seed=", "outputs_dir=", *verbs()} <= set(found)
    assert not {"defaults=", "hydra="} & set(found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell, capsys):
    script = shown(capsys, "-sc", f"install={shell}")
    assert script == shown(capsys, "completion", shell, "outputs_dir=x")
    assert "dltrain completion query" in script
    if found := shutil.which(shell):
        subprocess.run([found, "-n"], input=script, text=True, check=True)


@pytest.fixture
def numbers() -> Path:
    """A folder in MNIST's format."""
    folder = Path("numbers")
    folder.mkdir()
    for part, count in (("train", 20), ("t10k", 10)):
        images = np.zeros((count, 28, 28), np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_file.encode(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_file.encode(np.arange(count, dtype=np.uint8) % 10))
    return folder


@pytest.mark.parametrize("action", ["check", "fetch"])
def test_good_data_pass(action, numbers, capsys):
    line = shown(capsys, "data", action, "data=idx", f"data.root={numbers}", "outputs_dir=elsewhere", "--debug")
    assert line.startswith("idx: 20 train, 10 test examples, 10 classes, verified: ")
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(("action", "code"), [("check", 70), ("fetch", 66)])
@pytest.mark.parametrize(
    ("file", "damage"), [("train-images-idx3-ubyte", b"\0\0\7\3"), ("t10k-labels-idx1-ubyte", b"")]
)
def test_damaged_data_fail(action, code, file, damage, numbers, capsys):
    (numbers / file).write_bytes(damage)
    assert main(["data", action, "data=idx", f"data.root={numbers}"]) == code
    assert f"numbers/{file}: " in said(capsys)


@pytest.mark.parametrize("action", ["check", "fetch"])
def test_missing_data_are_named(action, numbers, capsys):
    (numbers / "t10k-labels-idx1-ubyte").unlink()
    assert main(["data", action, "data=idx", f"data.root={numbers}"]) == 66
    assert "t10k-labels-idx1-ubyte" in said(capsys)


def test_the_module_runs_as_a_program():
    process = subprocess.run([sys.executable, "-m", "dltrain", "model=lent"], capture_output=True, text=True)
    assert process.returncode == 78
    assert process.stderr == "dltrain: unknown model 'lent': did you mean lenet?\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_leave_the_processor_to_others_unless_told_otherwise(given, expected, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == expected
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["device.threads=100000"], "device.threads=100000: must be at most 1024"),
        (["model.name=null"], "model.name=null: must be a text"),
        (["optim.betas={a:1}"], "optim.betas={a:1}: "),
        (["optim.betas=[2,2]"], "optim.betas=[2, 2]: must be below 1"),
        (["init=constant", "init.value=1e300"], "init.value=1e+300: must be at most 3.4e+38"),
        (["augment=crop_flip", "augment.padding=100000"], "augment.padding=100000: must be at most 1024"),
        (["loss.label_smoothing=2"], "loss.label_smoothing=2: must be at most 1"),
        (["model=mlp", "model.dropout=1.5"], "model.dropout=1.5: must be below 1"),
        (["model=mlp", "model.hidden_sizes=[0]"], "model.hidden_sizes=[0]: must be at least 1"),
        (["data=synthetic", "data.num_train=0"], "data.num_train=0: must be at least 1"),
        (["name=-x"], "name=-x: must be 1 to 80 letters"),
    ],
)
def test_what_cannot_be_is_refused_before_torch_is_imported(words, message):
    code = f"import sys; from dltrain.cli import main; main({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n"
    assert done.stderr.startswith(f"dltrain: {message}")
    assert done.stderr.count("\n") == 1
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "optim: its YAML file has no name"),
        ("name: 3\n", "optim.name=3: must be a text"),
        ("name: SparseAdam\n", "optim.name=SparseAdam"),
    ],
)
def test_a_foreign_yaml_without_a_fitting_name_is_refused_in_one_line(text, message, capsys):
    Path("conf/optim").mkdir(parents=True)
    Path("conf/optim/odd.yaml").write_text(text)
    assert main(["--config-dir", "conf", "optim=odd", *LITTLE]) == 78
    assert capsys.readouterr().err.startswith(f"dltrain: {message}")


SOME = [*LITTLE, "model=mlp", "trainer.epochs=3", "trainer.limit_train_batches=3", "name=run"]


@pytest.mark.parametrize("closing", ["| head -n 1", ">&-", "2>&-", ">&- 2>&-"])
def test_a_terminal_that_is_gone_does_not_end_a_run(closing):
    words = " ".join(f"'{word}'" for word in SOME)
    subprocess.run(["bash", "-c", f"'{sys.executable}' -m dltrain {words} {closing}"], check=False, capture_output=True)
    assert json.loads(Path("outputs/runs/run/summary.json").read_text())["status"] == "completed"


def test_help_may_be_cut_short():
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; '{sys.executable}' -m dltrain --help | head -n 1"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("file", "code"), [("config.yaml", 78), ("summary.json", 0)])
def test_a_damaged_run_of_that_name_is_told_in_one_line(file, code, capsys):
    assert main(SOME) == 0
    Path("outputs/runs/run", file).write_text("{ not: [")
    assert main(SOME) == code
    assert "unforeseen" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", verbs())
def test_the_help_of_a_verb_tells_of_each_of_its_flags(verb, capsys):
    assert main([verb, "--help"]) == 0
    told = capsys.readouterr().out
    for flag in FLAGS_OF.get(verb, ()):
        assert re.search(rf"^  {flag}\b.*  \w", told, re.MULTILINE), flag
