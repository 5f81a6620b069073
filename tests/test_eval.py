"""`dltrain eval`: the numbers against hand and record, the files it leaves, and the count of looks at the test set."""

import base64
import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rows, run, summary, train
from PIL import Image

import dltrain
from dltrain import data, evaluation
from dltrain.cli import main
from dltrain.data.splits import split
from dltrain.run.lock import Lock
from dltrain.verbs._evaluation import Outcome
from dltrain.verbs._evaluation_content import _table_of_classes

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.2, 0.5, 0.3], [0.1, 0.0, 0.9], [0.6, 0.3, 0.1]])
TARGETS = np.array([0, 0, 1, 2, 2])  # predicted 0, 1, 1, 2, 0
DRAW = "dltrain.report.run_pictures.draw_run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with averaged weights and an augmentation, whose best epoch is perhaps not the last."""
    folder = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(DRAW, lambda folder: [])  # which takes longer than all else here
        words = ("trainer.epochs=3", "trainer.ema=0.9", "augment=crop_flip", "device.precision=fp32", "optim.lr=0.002")
        return train("model=mlp", "trainer.keep=3", "trainer.checkpoint_every='1 epochs'", *words)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(DRAW, lambda folder: [])


@pytest.fixture
def first(trained):
    """A copy of that run of the test's own, as the name `first`."""
    return Path(shutil.copytree(trained, Path("outputs/runs/first").resolve()))


def evaluated(folder: Path, *flags: str, end: str = "test", expected: int = 0):
    """What the verb leaves in JSON."""
    assert main(["eval", str(folder), *flags, "--debug"]) == expected
    return json.loads((folder / f"evaluation-{end}.json").read_text())


def predictions(folder: Path, end: str = "test") -> list[dict[str, str]]:
    with (folder / f"predictions-{end}.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def probabilities(table: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(value) for key, value in line.items() if key.startswith("p(")] for line in table])


def test_the_formulas_give_what_a_hand_computes():
    confusion = evaluation.confusion_matrix(TARGETS, PROBABILITIES.argmax(1), num_classes=3)
    assert confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert evaluation.of_classes(confusion) == [
        {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2},
        {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
    ]
    assert evaluation.balanced_accuracy(confusion) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert [evaluation.top_k_accuracy(PROBABILITIES, TARGETS, k=k) for k in (1, 2, 3)] == [0.6, 0.8, 1.0]
    # Fifths: the two of 0.5 and 0.5 (1 right), 0.6 (wrong) in (0.4, 0.6]; 0.7 (right); 0.9 (right).
    error, bins = evaluation.calibration(PROBABILITIES, TARGETS, bins=5)
    assert error == pytest.approx((abs(1 - 1.6) + abs(1 - 0.7) + abs(1 - 0.9)) / 5)
    assert [each["count"] for each in bins] == [0, 0, 3, 1, 1]
    assert bins[0]["accuracy"] is None
    worst = evaluation.worst_mistakes(PROBABILITIES.argmax(1), TARGETS, np.array([0, 1, 9, 0, 2.0]), most=5)
    assert worst.tolist() == [4, 1]
    errors = evaluation.regression(np.array([[1.0], [2], [6]]), np.array([[1.0], [3], [5]]))
    assert errors == {"mse": pytest.approx(2 / 3), "mae": pytest.approx(2 / 3), "r2": pytest.approx(1 - 2 / 8)}
    assert evaluation.regression(np.ones((2, 1)), np.ones((2, 1)))["r2"] is None


def test_a_class_that_nobody_has_or_names_counts_for_nothing():
    confusion = evaluation.confusion_matrix(np.array([0, 0, 1]), np.array([0, 0, 0]), num_classes=3)
    assert evaluation.balanced_accuracy(confusion) == 0.5
    _, never_named, absent = evaluation.of_classes(confusion)
    assert never_named == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert absent == {"precision": None, "recall": None, "f1": None, "support": 0}


def test_the_formulas_give_what_scikit_learn_does():
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    given = generator.dirichlet(np.ones(7), 500)
    targets = generator.integers(0, 7, 500)
    confusion = evaluation.confusion_matrix(targets, given.argmax(1), num_classes=7)
    assert (confusion == metrics.confusion_matrix(targets, given.argmax(1))).all()
    assert evaluation.balanced_accuracy(confusion) == metrics.balanced_accuracy_score(targets, given.argmax(1))
    assert evaluation.top_k_accuracy(given, targets, k=5) == metrics.top_k_accuracy_score(targets, given, k=5)
    theirs = metrics.precision_recall_fscore_support(targets, given.argmax(1))
    ours = [[each[key] for each in evaluation.of_classes(confusion)] for key in ("precision", "recall", "f1")]
    np.testing.assert_allclose(ours, theirs[:3])


def test_the_numbers_are_those_of_the_record_and_of_the_predictions(first, capsys):
    best = summary(first)["best"]["step"]
    found = evaluated(first)
    (recorded,) = rows(first, "test")
    assert {key: found["metrics"][key] for key in ("loss", "accuracy")} == {
        key: recorded[key] for key in ("loss", "accuracy")
    }
    assert found["checkpoint"] == {"chosen": "best", "step": best, "averaged": True}
    table = predictions(first)
    assert [int(line["index"]) for line in table] == [*range(64)]
    assert found["examples"] == 64
    right = np.mean([line["target"] == line["prediction"] for line in table])
    assert right == found["metrics"]["accuracy"] == pytest.approx(np.trace(found["confusion"]) / 64)
    given, names = probabilities(table), [each["name"] for each in found["classes"]]
    own = [given[place, names.index(line["target"])] for place, line in enumerate(table)]
    np.testing.assert_allclose([float(line["loss"]) for line in table], -np.log(own), rtol=1e-4, atol=1e-5)
    assert np.mean(-np.log(own)) == pytest.approx(found["metrics"]["loss"], rel=1e-5)
    targets = np.array([names.index(line["target"]) for line in table])
    numbers = evaluation.classification(given, targets)
    assert {key: found["metrics"][key] for key in numbers} == pytest.approx(numbers)
    assert "expected_calibration_error" in numbers
    assert "top5_accuracy" in numbers
    out = capsys.readouterr().out
    assert max(map(len, out.split("wrote")[0].splitlines())) <= 80
    assert f"{found['metrics']['accuracy']:.4f}" in out
    assert "evaluation-test.json" in out


def test_the_worst_mistakes_are_shown_as_they_were_stored(first):
    found, table = evaluated(first), predictions(first)
    stored = data.synthetic(num_train=700, num_test=64).load()["test"]
    losses = [each["loss"] for each in found["worst"]]
    wrong = [float(line["loss"]) for line in table if line["target"] != line["prediction"]]
    assert losses == pytest.approx(sorted(wrong, reverse=True)[:24])
    for each in found["worst"]:
        assert stored.targets[each["index"]] == each["target"] != each["prediction"]
        kind, _, encoded = each["image"].partition(",")
        assert kind == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
        assert (pixels == stored.inputs[each["index"]][0]).all()


@pytest.mark.parametrize("part", ["val", "train"])
def test_a_split_is_the_runs_own_each_example_once_and_unchanged(first, part):
    found = evaluated(first, "--split", part, end=part)
    stored = data.synthetic(num_train=700, num_test=64).load()["train"]
    places = split(stored.targets, val_size=64, seed=0)[part]
    expected = dltrain.load(first).predict(stored.inputs[places]).numpy()
    np.testing.assert_allclose(probabilities(predictions(first, part)), expected, atol=1e-5)
    assert found["looks"] is None
    if part == "val":
        best = summary(first)["best"]
        (row,) = [row for row in rows(first, "val") if row["step"] == best["step"]]
        assert (found["metrics"]["loss"], found["metrics"]["accuracy"]) == (row["loss"], row["accuracy"])


def test_looks_at_the_test_set_are_counted_for_ever(first, capsys):
    assert evaluated(first)["looks"] == {"training": 1, "after": 1}
    evaluated(first, "--split", "val", end="val")
    evaluated(first, "--data", "data.seed=5", end=f"test-{fingerprint(first)}")  # another test set
    assert evaluated(first, "--checkpoint", "last", end="test-last")["looks"] == {"training": 1, "after": 2}
    assert "the test set was looked at 3 times: 1 in training, 2 since" in capsys.readouterr().out
    assert main(["resume", str(first), "trainer.epochs=4"]) == 0
    assert len(rows(first, "test")) == 1
    assert evaluated(first)["looks"] == {"training": 2, "after": 3}


def fingerprint(folder: Path) -> str:
    """The first letters of the digest of synthetic data of seed 5."""
    other = data.synthetic(num_train=700, num_test=64, seed=5)
    other.load()
    return other.fingerprint()[:8]


def test_a_checkpoint_can_be_chosen(first, capsys):
    best = evaluated(first)
    last = evaluated(first, "--checkpoint", "last", end="test-last")
    steps = sorted(int(path.name[5:]) for path in (first / "checkpoints").glob("step-*"))
    one = evaluated(first, "--checkpoint", str(steps[0]), end=f"test-{steps[0]}")
    assert last["checkpoint"]["step"] == steps[-1]
    assert one["checkpoint"]["step"] == steps[0]
    assert one["metrics"]["loss"] != last["metrics"]["loss"]
    assert json.loads((first / "evaluation-test.json").read_text()) == best  # the usual one stands as it was
    assert main(["eval", str(first), "--checkpoint", "7"]) == 66
    assert f"step 7 that verifies; there are: {steps[0]}" in capsys.readouterr().err


def test_other_data_are_prepared_as_the_runs_were_and_said_to_be_others(first, capsys):
    words = ["data=synthetic", "data.num_train=300", "data.num_test=50", "data.seed=7", "data.val_size=0"]
    assert main(["eval", "--data", *words, "--split", "test", str(first)]) == 0
    assert "note: these are not the data that the run was trained with" in capsys.readouterr().out
    (path,) = first.glob("evaluation-test-*.json")
    found = json.loads(path.read_text())
    assert not found["data"]["same"]
    assert found["looks"] is None
    assert found["examples"] == 50
    stored = data.synthetic(num_train=300, num_test=50, seed=7).load()["test"]
    table = predictions(first, path.stem.removeprefix("evaluation-"))
    np.testing.assert_allclose(probabilities(table), dltrain.load(first).predict(stored.inputs).numpy(), atol=1e-5)


def test_a_folder_that_cannot_be_written_shows_the_numbers_all_the_same(first, capsys):
    (first / "looks.jsonl").mkdir()
    (first / "evaluation-test.json").unlink()
    assert main(["eval", str(first)]) == 74
    told = capsys.readouterr()
    assert "balanced accuracy" in told.out
    assert "wrote" not in told.out
    assert "the evaluation is not kept: cannot write" in told.err
    assert not [*first.glob("evaluation-*"), *first.glob("predictions-*"), *first.glob(".predictions*")]


def test_training_leaves_what_evaluating_the_run_says(first):
    left = json.loads((first / "evaluation-test.json").read_text())
    assert left["looks"] == {"training": 1, "after": 0}
    assert len(left["worst"]) > 3
    found = evaluated(first)
    assert found["looks"] == {"training": 1, "after": 1}
    del left["when"], left["looks"], found["when"], found["looks"]
    assert left == found


def test_training_with_the_test_set_watched_leaves_what_the_last_weights_lead_to():
    folder = train("model=mlp", "trainer=smoke", "trainer.watch_test=true", "trainer.epochs=2", "optim.lr=1e-3")
    left = json.loads((folder / "evaluation-test.json").read_text())
    assert left["checkpoint"] == {"chosen": "last", "step": summary(folder)["steps"], "averaged": False}
    assert {key: left["metrics"][key] for key in ("loss", "accuracy")} == summary(folder)["test"]
    assert len(rows(folder, "test")) == left["looks"]["training"] == 2


def test_the_page_shows_the_evaluation_of_now(first, capsys):
    page = first / "report.html"
    (first / "evaluation-test.json").unlink()
    page.unlink()
    evaluated(first, "--split", "val", end="val")
    assert not page.exists(), "a run that has none gets none"
    assert main(["report", str(first)]) == 0
    assert "of the val part" in page.read_text()
    evaluated(first)
    assert f"wrote  {page}" in capsys.readouterr().out
    assert "of the test part" in page.read_text()


def test_a_run_under_way_can_be_evaluated(first):
    with Lock() as lock:
        lock.take(first)
        evaluated(first, "--split", "val", end="val")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--split", "night"], 2, "night"),
        (["--checkpoint", "first"], 2, "best, last or the number of a step"),
        (["--data", "optim.lr=1"], 78, "data=NAME and data.KEY=VALUE alone"),
        (["--data", "data.val_size=10"], 78, "the run has split its data with 64"),
        (["--data", "data.classes=[0,6]", "data.batch_size=16"], 78, "the run has learned the classes t-shirt"),
        (["--data", "data.numtest=10"], 78, "data.num_test"),
        (["--device", "abacus"], 78, "abacus"),
        (["another"], 2, "one run"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(trained, words, code, told, capsys):
    assert main(["eval", str(trained), *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_weights_that_lead_nowhere_are_not_measured(first, monkeypatch, capsys):
    monkeypatch.setattr("dltrain.verbs._evaluation.evaluated", lambda tensors: spoilt(tensors["model"]))
    assert main(["eval", str(first)]) == 65
    assert "not finite" in capsys.readouterr().err


def spoilt(tensors):
    return {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}


def test_numbers_are_measured_by_their_errors_in_their_own_unit(capsys):
    folder = run("experiment=airfoil", "trainer.epochs=2", "device=cpu")
    found, table = evaluated(folder, "--split", "train", end="train"), predictions(folder, "train")
    targets, outputs = (np.array([float(line[key]) for line in table]) for key in ("target", "prediction"))
    assert 115 < targets.mean() < 135
    assert found["metrics"]["mse"] == pytest.approx(np.mean((targets - outputs) ** 2))
    assert found["metrics"]["mae"] == pytest.approx(np.mean(np.abs(targets - outputs)))
    assert found["metrics"]["r2"] == pytest.approx(1 - np.mean((targets - outputs) ** 2) / targets.var(), rel=1e-4)
    assert "no classes" in found["left_out"]
    assert "accuracy" not in found["metrics"]
    assert main(["eval", str(folder)]) == 78
    assert "--split test: data=csv has no such part here: train, val" in capsys.readouterr().err


def test_texts_are_measured_by_perplexity_and_the_share_of_right_tokens(capsys):
    Path("text.txt").write_text("abcd" * 400)
    words = ("data.path=text.txt", "data.length=8", "data.val_size=20", "data.batch_size=16", "trainer.epochs=8")
    folder = run("data=text", "model=rnn", *words, "device=cpu", "optim.lr=0.02")
    found, table = evaluated(folder, "--split", "val", end="val"), predictions(folder, "val")
    assert found["metrics"]["perplexity"] == pytest.approx(np.exp(np.mean([float(each["loss"]) for each in table])))
    assert 0.25 < found["metrics"]["token_accuracy"] == np.mean([float(each["token_accuracy"]) for each in table])
    assert "left out: top-k" in capsys.readouterr().out


def test_of_many_classes_the_most_probable_are_told():
    given = np.random.default_rng(0).dirichlet(np.ones(30), 3)
    outcome = Outcome({}, losses=np.ones(3), targets=np.array([4, 5, 6]), outputs=given)
    head, line, *_ = _table_of_classes(tuple(f"class {place}" for place in range(30)), outcome)
    assert head[-2:] == ["class_5", "p_5"]
    assert len(line) == len(head) == 15
    assert line[5:7] == [f"class {given[0].argmax()}", given[0].max()]


def test_a_landscape_has_nothing_to_evaluate(capsys):
    folder = run("data=function", "model=point", "optim=sgd", "optim.lr=0.1", "data.steps=3")
    assert main(["eval", str(folder)]) == 78
    assert "metrics.jsonl" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "darwin", reason="its folders have names in UTF-8 alone")
def test_a_class_whose_folder_is_not_named_in_utf_8_is_told_of_with_codes():
    for name in ("caf\udce9", "tea"):
        (Path("pictures") / name).mkdir(parents=True)
        for number in range(12):
            Image.new("L", (28, 28), number * 9).save(Path("pictures") / name / f"{number}.png")
    words = ("data=image_folder", "data.root=pictures", "data.image_size=28", "data.val_size=8", "data.batch_size=8")
    folder = run(*words, "model=mlp", "trainer.epochs=1", "data.cache=false", "device=cpu")
    evaluated(folder, "--split", "val", end="val")
    assert {line["target"] for line in predictions(folder, "val")} == {"caf\\udce9", "tea"}
