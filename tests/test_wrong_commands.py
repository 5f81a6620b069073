"""Wrong command lines, each answered with its fix: the words were chosen by what a person has to type instead."""

import contextlib
import io
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import LITTLE

import dltrain
from dltrain.cli import main

SHARE, LINES, SECONDS = 0.95, 3, 1.0
MARGIN = 3  # for a machine that others use too
FEW = shlex.join(LITTLE)
AIRFOIL = f"data=csv data.path={Path(__file__).parent / 'data/airfoil_self_noise.dat'}"
# A command line, its exit code, and a pattern that the first lines of the answer must hold.
WRONG = [
    # choices
    ("model=lent", 78, r"lenet\b"),
    ("model=ResNet18", 78, r"resnet18\b"),
    ("model=resnet-18", 78, r"resnet18\b"),
    ("model=resnet", 78, r"resnet18\b"),
    ("model=", 78, r"lenet\b"),
    ("model=xyz", 78, r"there are: .*lenet"),
    ("optim=Adam", 78, r"\badam\b"),
    ("optim=amsgrad", 78, r"\badam\b"),
    ("data=fashionmnist", 78, r"fashion_mnist"),
    ("data=cifar", 78, r"cifar10"),
    ("loss=crossentropy", 78, r"cross_entropy"),
    ("init=xavier", 78, r"xavier_uniform"),
    ("device=gpu", 78, r"\bcuda\b"),
    ("device=tpu", 78, r"\bcpu\b"),
    ("experiment=d2l_lent_bn", 78, r"d2l_lenet_bn"),
    ("logger=tensorbord", 78, r"\btensorboard"),
    ("logger=wand", 78, r"logger=wandb"),
    (f"{FEW} model.norm=sync_batch", 78, r"\bbatch\b"),
    # groups
    ("modle=lenet", 78, r"\bmodel=lenet"),
    ("optimizer=adam", 78, r"\boptim=adam"),
    ("scheduler=cosine", 78, r"\bschedule=cosine"),
    ("dataset=mnist", 78, r"\bdata=mnist"),
    ("dataset=", 78, r"\bdata="),
    ("lenet", 2, r"\bmodel=lenet"),
    # keys
    ("lr=0.1", 78, r"\boptim\.lr=0\.1"),
    ("learning_rate=0.1", 78, r"\boptim\.lr=0\.1"),
    ("optim.lrr=0.1", 78, r"\boptim\.lr\b"),
    ("optim.learning_rate=0.1", 78, r"\boptim\.lr\b"),
    ("model.lr=0.1", 78, r"\boptim\.lr\b"),
    ("batch_size=64", 78, r"\bdata\.batch_size=64"),
    ("batchsize=64", 78, r"\bdata\.batch_size=64"),
    ("epochs=5", 78, r"\btrainer\.epochs=5"),
    ("trainer.max_epochs=5", 78, r"\btrainer\.epochs\b"),
    ("data.epochs=3", 78, r"\btrainer\.epochs\b"),
    ("seeds=1", 78, r"\bseed\b"),
    ("optim=momentum +optim.momentun=0.9", 78, r"\boptim\.momentum\b"),
    ("optim.momentum=0.9", 78, r"optim=(momentum|sgd|nesterov)"),
    ("model.hidden_sizes=[8]", 78, r"model=(fixed_hidden_)?mlp"),
    ("logger.name=x", 78, r"logger=NAME"),
    ("hydra.run.dir=x", 78, r"name=|outputs_dir="),
    # flags
    ("--lr 0.1", 2, r"\boptim\.lr=0\.1"),
    ("-lr 0.1", 2, r"\boptim\.lr=0\.1"),
    ("--learning-rate=0.01", 2, r"\boptim\.lr=0\.01"),
    ("--epochs 5", 2, r"\btrainer\.epochs=5"),
    ("--model lenet", 2, r"\bmodel=lenet"),
    ("--optimizer adam", 2, r"\boptim=adam"),
    ("--dataset mnist", 2, r"\bdata=mnist"),
    ("--device cuda", 2, r"\bdevice=cuda"),
    ("--gpu", 2, r"\bdevice=cuda"),
    ("--batch-size 64", 2, r"\bdata\.batch_size=64"),
    ("--name x", 2, r"\bname=x"),
    ("--resume first", 2, r"dltrain resume first"),
    ("--multirun", 2, r"-m \w+=\w+,\w+"),
    ("--mulitrun model=lenet,mlp", 2, r"--multirun"),
    ("--verbose", 2, r"--help"),
    ("--cfg jobs", 2, r"\bjob\b"),
    ("--cfg", 2, r"\bjob\b"),
    ("--config-dir nowhere", 78, r"nowhere: no such folder"),
    ("--config-name nope", 78, r"nope"),
    # blanks, signs and what a shell does
    ("lr= 0.1", 2, r"\boptim\.lr=0\.1"),
    ("optim.lr= 0.1", 2, r"\boptim\.lr=0\.1"),
    ("optim.lr =0.1", 2, r"\boptim\.lr=0\.1"),
    ("optim.lr = 0.1", 2, r"\boptim\.lr=0\.1"),
    ("optim.lr 0.1", 2, r"\boptim\.lr=0\.1"),
    ("'optim.lr =0.1'", 2, r"\boptim\.lr=0\.1"),
    ("model = lenet", 2, r"\bmodel=lenet"),
    ("model lenet", 2, r"\bmodel=lenet"),
    ("model: lenet", 2, r"\bmodel=lenet"),
    ("model==lenet", 2, r"\bmodel=lenet"),
    ("optim.lr:0.1", 2, r"\boptim\.lr=0\.1"),
    ("model=mlp optim.lr", 2, r"optim\.lr=VALUE|key=value"),
    ("=3", 2, r"key=value"),
    ("model=mlp model.hidden_sizes=[64, 64]", 2, r"quote"),
    ("optim.lr=[0.1", 2, r"quote"),
    ("data=idx data.root=/a=b", 2, r"""data\.root='"/a=b"'"""),
    ("name=my run", 2, r"'?name=my_run|quote"),
    ("'name=my run'", 78, r"letters, digits"),
    # values
    ("trainer.epochs=-1", 78, r"at least 1"),
    ("trainer.epochs=two", 78, r"whole number"),
    ("trainer.epochs=2.5", 78, r"whole number"),
    ("trainer.epochs=", 78, r"whole number"),
    ("optim.lr=banana", 78, r"must be a number"),
    ("optim.lr=1e-3x", 78, r"must be a number"),
    ("optim.lr=0,1", 78, r"\boptim\.lr=0\.1|decimal point"),
    ("optim.lr=0.1,0.01", 78, r"add -m"),
    ("model=lenet,mlp", 78, r"add -m"),
    ("device.precision=half", 78, r"\bfp16"),
    ("device.precision=float32", 78, r"\bfp32"),
    ("trainer.checkpoint_every=500", 78, r'"500 steps"'),
    ("trainer.must_learn=yes", 78, r"true or false"),
    ("trainer.monitor=accuracy", 78, r"val_accuracy"),
    ("data.val_size=0.1", 78, r"whole number"),
    ("data.classes=0", 78, r"\[1,2\]"),
    ("'data.classes=[0 6]'", 78, r"\[1,2\]|whole number"),
    ("model=mlp model.hidden_sizes=64", 78, r"\[1,2\]"),
    ("optim.betas=0.9", 78, r"must be a list"),
    ("data.classes=0,1", 78, r"data\.classes=\[0,1\]"),
    ("optim.beta1=0.8", 78, r"optim\.betas=\[0\.9,0\.999\]"),
    ("model=lenet, optim=adam", 2, r"\bmodel=lenet$"),
    ("overfit steps=10", 78, r"--steps 10"),
    ("device.ranks=2", 78, r"device\.count=2"),
    ("gpus=2", 78, r"device\.count=2"),
    ("bench scale", 2, r"dltrain bench scaling"),
    ("bench device.count=2", 78, r"dltrain bench scaling"),
    ("bench scaling device=cpu device.threads=1 device.count=2", 78, r"device\.threads=1"),
    ("device=cpu device.count=1000", 78, r"at most \d+ ranks"),
    ("loss.label_smoothing=2", 78, r"at most 1"),
    ("seed=1..3", 78, r"whole number"),
    # files, and choices that do not fit each other
    ("data=idx", 78, r"data\.root=\w+"),
    ("data=idx data.root=/nowhere", 66, r"/nowhere: no such folder"),
    ("data=csv data.path=/nowhere.csv", 66, r"/nowhere\.csv"),
    (f"{FEW} data.batch_size=100000", 78, r"636"),
    (f"{FEW} data.classes=[0,99]", 78, r"0 to 9"),
    (f"{FEW} model.norm=bn", 78, r"\bbatch\b"),
    (f"{FEW} model.activation=leaky", 78, r"\brelu\b"),
    (f"{FEW} optim.betas=[0.9]", 78, r"list of 2"),
    (f"{FEW} model=densenet data.image_size=28", 78, r"at least 29"),
    (f"{FEW} data.val_size=0 trainer.early_stop=3", 78, r"data\.val_size"),
    (f"{FEW} model=point", 78, r"data=function|choose another"),
    ("data=function model=lenet", 78, r"model=point|choose another"),
    (f"{AIRFOIL} loss=cross_entropy", 78, r"loss=mse|choose another"),
    (f"{AIRFOIL} model=lenet", 78, r"model=(linear|mlp)|choose another"),
    (f"{FEW} init=run init.path=frist", 78, r"\bfirst\b"),
    # verbs, and their runs
    ("trian", 2, r"\btrain\b"),
    ("evaluate first", 2, r"\beval\b"),
    ("test first", 2, r"\beval\b"),
    ("list", 2, r"\bruns\b"),
    ("sweep model=lenet,mlp", 2, r"-m"),
    ("train lenet", 2, r"\bmodel=lenet"),
    ("help evall", 2, r"\beval\b"),
    ("resume", 2, r"one run"),
    ("resume frist", 78, r"\bfirst\b"),
    ("resume first trainer.epochs=two", 78, r"whole number"),
    ("resume first epochs=12", 78, r"trainer\.epochs=12"),
    ("resume first model=lenet", 78, r"another run"),
    ("resume first optim.lr=0.5", 78, r"--allow-changes"),
    ("resume first --allow-change", 2, r"--allow-changes"),
    ("resume first --epochs 12", 2, r"trainer\.epochs=12"),
    ("eval", 2, r"dltrain eval \w+"),
    ("eval frist", 78, r"\bfirst\b"),
    ("eval study", 78, r"study/0"),
    ("eval first --split validation", 2, r"\bval\b"),
    ("eval first split=val", 2, r"--split val"),
    ("eval first --checkpoint lst", 2, r"\blast\b"),
    ("eval first --checkpont last", 2, r"--checkpoint"),
    ("eval first --data optim.lr=1", 78, r"data\.KEY=VALUE"),
    ("eval first --device gpu", 78, r"\bcuda\b"),
    ("predict", 2, r"dltrain predict \w+ \w+"),
    ("predict first", 2, r"dltrain predict first \w+"),
    ("predict first nothing.jpg", 66, r"nothing\.jpg"),
    ("predict first --top many", 2, r"--top"),
    ("predict first --promt text", 2, r"--prompt"),
    ("predict first x.jpg --checkpoint best", 2, r"dltrain predict takes --top, --json, --invert"),
    ("replay first --seed 3", 2, r"dltrain replay takes --to, --device, --check"),
    ("eval first data.root=/x", 2, r"--data data\.root=/x"),
    ("infer first x.png", 2, r"predict"),
    ("batch=32", 78, r"data\.batch_size=32"),
    ("inspect first model=mlp", 2, r"one run"),
    ("inspect first --parameter weight", 78, r"hidden\.0\.weight"),
    ("diff first", 2, r"two runs"),
    ("diff first frist", 78, r"\bfirst\b"),
    ("replay", 2, r"dltrain replay \w+"),
    ("replay frist", 78, r"\bfirst\b"),
    ("replay first optim.lr=1", 2, r"dltrain resume|one run"),
    ("replay first --to first", 78, r"another name"),
    ("runs 'test_acc>0.8'", 78, r"test_accuracy"),
    ("runs 'optim=sgd'", 2, r"optim==sgd"),
    ("runs 'test_accuracy>'", 2, r"value"),
    ("runs --sort val_los", 78, r"val_loss"),
    ("data", 2, r"\bfetch\b"),
    ("data ftech", 2, r"\bfetch\b"),
    ("data check data=nope", 78, r"there are: .*fashion_mnist"),
    ("bench --quik", 2, r"--quick"),
    ("completion tcsh", 2, r"bash, zsh, fish"),
    # sweeps
    ("-m model=lenet,lent", 78, r"did you mean lenet"),
    ("-m model=lenet, mlp", 2, r"model=lenet,mlp|quote"),
    ("-m optim.lr=interval(0,1)", 78, r"optuna"),
    ("-m model=lenet,mlp name=a,b", 78, r"one for all jobs"),
    ("-m seed=1,2 sweep.search=bayes", 78, r"optuna"),
    ("-m seed=1,2 hydra/launcher=slurm", 78, r"submitit_slurm"),
    ("-m seed=range(1,1)", 78, r"empty"),
]


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """A folder with a run, `first`, and a sweep, `study`, that is the working directory of every command line."""
    folder = tmp_path_factory.mktemp("wrong")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        words = ["data.image_size=28", "model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=2", "name=first"]
        assert main([*LITTLE, *words]) == 0
        study = Path("outputs/sweeps/study")
        study.mkdir(parents=True)
        (study / "sweep.jsonl").write_text(json.dumps({"job": 0, "overrides": []}) + "\n")
    return folder


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def answer(line: str) -> tuple[int, str, float]:
    """The exit code, stderr and the seconds of a command line."""
    said = io.StringIO()
    begun = time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(shlex.split(line))
    return code, said.getvalue(), time.perf_counter() - begun


def what_is_wrong(line: str, code: int, fix: str) -> str | None:
    """How the answer to a command line falls short."""
    found, said, seconds = answer(line)
    first = "\n".join(said.splitlines()[:LINES])
    if "Traceback" in said or "unforeseen" in said:
        return f"{line}\n    an error of ours: {said}"
    if seconds > SECONDS * MARGIN:
        return f"{line}\n    {seconds:.1f} s"
    if found != code or not re.search(fix, first):
        return f"{line}\n    {found} in place of {code}, {fix!r} wanted: {first}"
    return None


def test_wrong_command_lines_are_answered_with_their_fix(surroundings, monkeypatch, record_property):
    monkeypatch.chdir(surroundings)
    before = files(surroundings)
    wrong = [told for line in WRONG if (told := what_is_wrong(*line))]
    share = 1 - len(wrong) / len(WRONG)
    record_property("shown", f"wrong command lines answered with their fix: {share:.1%} of {len(WRONG)}")
    print("\n".join(wrong))
    assert share >= SHARE, f"{len(wrong)} of {len(WRONG)} answered badly"
    assert files(surroundings) == before


COLD = ["lr=0.1", "--lr 0.1", "model = lenet", "eval frist", "predict frist a.png", "overfit steps=10"]


@pytest.mark.parametrize("line", COLD)
def test_a_refusal_is_quick_in_a_process_of_its_own_and_torch_is_not_imported(line, surroundings):
    program = "import sys; from dltrain.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(dltrain.__file__).parents[1]), "PATH": os.environ["PATH"]}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-c", program, *shlex.split(line)]
    process = subprocess.run(command, cwd=surroundings, env=environment, capture_output=True, text=True, check=True)
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert process.stdout == "False\n"
    assert process.stderr.startswith("dltrain: ")
    assert seconds < SECONDS * MARGIN
