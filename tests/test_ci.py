"""`trainer=ci`: what a run is good for is tried stage by stage, and what is wrong is named."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import run, summary, train

from dltrain.cli import main
from dltrain.verbs import _ci_training as training
from dltrain.verbs._ci import STAGES as STAGES_OF

STAGES = ["train", "data", "steps", "checkpoint", "resume", "eval", "predict", "export", "report"]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("dltrain.report.run_pictures.draw_run", lambda folder: None)


def found(folder: Path) -> dict[str, str]:
    """What became of each stage."""
    return {each["stage"]: each["status"] for each in read(folder)["stages"]}


def read(folder: Path) -> dict:
    return json.loads((folder / "ci.json").read_text())


@pytest.mark.parametrize(
    "words",
    [
        ("model=mlp", "data.classes=[3,5]", "data.batch_size=16", "trainer.ema=0.9", "augment=crop_flip", "optim=sgd"),
        ("model=lenet", "trainer.watch_test=true", "data.val_size=0", "device.precision=bf16"),
    ],
)
def test_a_sound_run_passes_every_stage_and_leaves_nothing_else(words):
    folder = train("trainer=ci", *words)
    report = read(folder)
    assert report["status"] == "passed"
    assert [each["stage"] for each in report["stages"]] == STAGES
    assert found(folder) == dict.fromkeys(STAGES, "passed")
    assert report["seconds"] == pytest.approx(sum(each["seconds"] for each in report["stages"]))
    assert summary(folder)["status"] == "completed"
    assert not (folder / ".ci").exists()


def test_numbers_texts_and_functions_pass_too():
    Path("text.txt").write_text("abcd efg " * 60)
    for number, words in enumerate(
        (
            ("experiment=airfoil",),
            ("data=text", "model=rnn", "data.path=text.txt", "data.length=8", "data.val_size=20"),
            ("data=function", "data.function=saddle", "model=point", "optim=sgd"),
        )
    ):
        folder = run(*words, "trainer=ci", "device=cpu", name=f"run{number}")
        assert read(folder)["status"] == "passed", words


def test_what_differs_after_a_resume_is_named(monkeypatch, capsys):
    monkeypatch.setattr("dltrain.engine.strategy.load_state", lambda optimizer, state: None)
    folder = train("trainer=ci", "model=mlp", expected=70)
    assert found(folder) == {**dict.fromkeys(STAGES, "passed"), "resume": "failed"}
    told = read(folder)["stages"][STAGES.index("resume")]["told"]
    assert told.startswith("failed: resumed at step 12, it differs: train loss of step 14 was ")
    assert summary(folder)["status"] == "failed"
    assert summary(folder)["exit_code"] == 70
    assert "check failed: resume; " in capsys.readouterr().out
    assert main(["resume", "run"]) == 70, "which is what came of it"


def test_labels_of_other_images_are_named(monkeypatch):
    original = training.make

    def shuffled(*arguments, **facts):
        dataset = original(*arguments, **facts)
        parts = dataset.load()
        parts["train"] = type(parts["train"])(parts["train"].inputs, np.roll(parts["train"].targets, 1))
        monkeypatch.setattr(dataset, "load", lambda: parts)
        return dataset

    monkeypatch.setattr(training, "make", shuffled)
    folder = train("trainer=ci", "model=mlp", expected=70)
    assert found(folder)["data"] == "failed"
    assert "targets that are not theirs" in read(folder)["stages"][1]["told"]


def test_a_stage_that_breaks_is_a_failed_one_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr("dltrain.trained.Trained.predict", lambda self, inputs: torch.zeros(1, 2, 3) @ inputs)
    folder = train("trainer=ci", "model=mlp", expected=70)
    assert found(folder) == {**dict.fromkeys(STAGES, "passed"), "predict": "failed"}
    assert read(folder)["stages"][STAGES.index("predict")]["told"].startswith("failed: RuntimeError: ")


def test_checks_that_were_killed_are_done_again(monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dltrain.run.checkpoint.load", killed)
        train("trainer=ci", "model=mlp", expected=130)
    folder = Path("outputs/runs/run").resolve()
    assert read(folder)["status"] == "under way"
    assert summary(folder)["cause"] == "its checks were not finished"
    (folder / ".ci").mkdir()
    assert main(["resume", "run"]) == 0
    assert read(folder)["status"] == summary(folder)["status"].replace("completed", "passed") == "passed"


def test_without_an_earlier_checkpoint_resuming_cannot_be_tried():
    folder = train("trainer=ci", "model=mlp", "trainer.epochs=1", expected=70)
    assert "trainer.epochs must be 2 or more" in read(folder)["stages"][STAGES.index("resume")]["told"]


def test_training_that_does_not_learn_ends_there():
    folder = train("trainer=ci", "model=mlp", "optim.lr=1e-30", expected=70)
    assert found(folder) == {"train": "failed"}
    assert "did not lower the loss" in read(folder)["stages"][0]["told"]
    assert summary(folder)["status"] == "failed"


def test_the_workflow_for_github_is_one_and_its_commands_run(monkeypatch):
    """Its actions exist outside of here; what it runs of dltrain is run, but for the slowest stage."""
    without = {name: stage for name, stage in STAGES_OF.items() if name != "export"}
    monkeypatch.setattr("dltrain.verbs._ci.STAGES", without)
    page = (Path(__file__).parents[1] / "docs/ci.md").read_text()
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    steps = yaml.safe_load(workflow)["jobs"]["train"]["steps"]
    lines = [step["run"] for step in steps if "run" in step]
    (command,) = [shlex.split(line) for line in lines if line.startswith("dltrain ")]
    assert f"```sh\n{shlex.join(command)}\n```" in page
    assert main([*command[1:], "data.num_train=300", "data.num_test=50", "data.val_size=50", "device.threads=1"]) == 0
    (kept,) = [step["with"]["path"] for step in steps if "with" in step and "path" in step["with"]]
    assert {"ci.json", "report.html"} <= {path.name for path in Path(kept).iterdir()}
    assert "pip install -e '.[export]'" in lines
