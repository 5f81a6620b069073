"""Tables of numbers: reading them, the notes' regression run, and what has no classes."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import rows, run, summary

import dltrain
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data import csv, linear_synthetic
from dltrain.data.dataset import DataError
from dltrain.losses import mse

CHECKOUT = Path(__file__).parents[1]
AIRFOIL = CHECKOUT / "tests" / "data" / "airfoil_self_noise.dat"
SETTINGS = {  # formulas of the notes: the command lines in the head of conf/experiment/airfoil.yaml
    line.split()[3]: tuple(line.split()[3:])
    for line in (CHECKOUT / "conf" / "experiment" / "airfoil.yaml").read_text().splitlines()
    if line.startswith("#   dltrain experiment=airfoil optim=")
}


PRICES = "x,price\n1,2\n3,5\n5,6\n"


def written(tmp_path, text):
    path = tmp_path / "table.txt"
    path.write_text(text)
    return str(path)


def test_the_notes_regression_names_six_optimizers():
    assert sorted(SETTINGS) == [
        f"optim={name}" for name in ("adadelta", "adagrad", "adam", "momentum", "rmsprop", "sgd")
    ]


@pytest.mark.parametrize("words", SETTINGS.values(), ids=SETTINGS)
def test_the_notes_regression_run(words):
    folder = run("experiment=airfoil", "device=cpu", *words)
    recorded = [row for row in rows(folder) if row["split"] == "val"]
    assert [row["step"] for row in recorded] == list(range(0, 301, 10))
    assert [row["epoch"] for row in recorded] == pytest.approx(np.linspace(0, 2, 31).tolist())
    assert 0.241 < recorded[-1]["loss"] < 0.256
    assert rows(folder)[-1] == recorded[-1]
    assert summary(folder)["test"] is None
    assert all("accuracy" not in row for row in rows(folder))
    assert summary(folder)["best"]["metric"] == "loss"


def test_the_first_loss_is_that_of_the_whole_table():
    """Half the mean square of the standardized target, with weights of N(0, 0.01^2) near 0: about a half."""
    table = np.loadtxt(AIRFOIL)
    standardized = ((table - table.mean(0)) / table.std(0))[:1500]
    made = build(compose(["experiment=airfoil", "device=cpu"]).config)
    with torch.no_grad():
        outputs = made.model(torch.tensor(standardized[:, :5], dtype=torch.float32)).numpy()
    expected = 0.5 * np.mean((outputs - standardized[:, 5:]) ** 2)
    folder = run("experiment=airfoil", "device=cpu", "trainer.epochs=1")
    assert rows(folder)[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(10, [10, 20, 25]), (30, [4, 7, 9]), (64, [2, 4]), (250, [1]), (1, [100, 200, 250])]
)
def test_where_the_batch_does_not_divide_the_interval_the_first_one_past_it_counts(batch_size, expected):
    words = ["data=linear_synthetic", "data.num_train=250", "data.val_size=train", f"data.batch_size={batch_size}"]
    folder = run(*words, "device=cpu", "trainer.epochs=1", "trainer.eval_every_examples=100")
    assert [row["step"] for row in rows(folder) if row["split"] == "val"] == expected


def test_an_interrupted_evaluation_within_an_epoch_is_made_up_for(monkeypatch):
    words = ["data=linear_synthetic", "device=cpu", "trainer.eval_every_examples=200", "data.batch_size=50"]
    words += ["trainer.eval_at_start=true", "trainer.checkpoint_every=4 steps", "name=twin"]
    twin = rows(run(*words))
    interrupted = run(*words[:-1], "name=cut", "trainer.epochs=1")
    checkpoint = max((interrupted / "checkpoints").glob("step-*"))
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["position"]["pending"] == []
    again = rows(run(*words[:-1], "name=cut", "trainer.epochs=2"))
    assert [(row["split"], row["step"], row["loss"]) for row in again if row["split"] == "val"] == [
        (row["split"], row["step"], row["loss"]) for row in twin if row["split"] == "val"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n1,2,3\n4,5,6\n7,9,8\n",
        "1;2;3\n4;5;6\n7;9;8\n",
        "1\t2\t3\n\n4\t5\t6\n7\t9\t8",
        " 1  2 3\n4 5   6\n7 9 8\n",
        '"a","b, with comma","y"\n1,2,3\n"4",5,6\n7,9,8\n',
    ],
    ids=["header", "semicolon", "tab", "spaces", "quotes"],
)
def test_separator_and_header_are_recognized(tmp_path, text):
    examples = csv(path=written(tmp_path, text)).load()
    assert examples["train"].inputs.tolist() == [[1, 2], [4, 5], [7, 9]]
    assert examples["train"].targets.tolist() == [[3], [6], [8]]
    assert examples["train"].inputs.dtype == examples["train"].targets.dtype == np.float32


def test_a_target_is_a_column_by_place_or_name_and_rows_are_the_first(tmp_path):
    path = written(tmp_path, "y,a,b\n1,2,3\n4,5,6\n7,9,8\n")
    by_name = csv(path=path, target="y", rows=2).load()["train"]
    assert by_name.targets.tolist() == csv(path=path, target=0, rows=2).load()["train"].targets.tolist() == [[1], [4]]
    assert by_name.inputs.tolist() == [[2, 3], [5, 6]]


@pytest.mark.parametrize(
    ("text", "keywords", "message"),
    [
        ("1,2\n3,x\n", {}, "row 2, column 1: 'x' is no number"),
        ("a,b\n3,4\n5,\n", {}, "row 3, column b: '' is no number"),
        ("1,2\n3,nan\n", {}, "row 2, column 1: 'nan' is no number"),
        ("1,2\n3\n", {}, "row 2 has 1 columns, the first one 2"),
        ("1\n3\n", {}, "one column, and there must be a feature and a target"),
        ("1,2\n", {}, "1 lines"),
        ("1,2\n3,4\n", {"rows": 3}, "data.rows=3: .* has 2"),
        ("1,2\n3,4\n", {"test_size": 1}, "data.test_size=1: there are 2 rows"),
        ("a,b\n1,2\n3,4\n", {"target": "c"}, "no column 'c'; there are a, b"),
        ("1,2\n3,4\n", {"target": 2}, "no column 2; there are 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path, text, keywords, message):
    table = csv(path=written(tmp_path, text), **keywords)
    with pytest.raises(DataError, match=message):
        table.load()


def test_statistics_are_of_the_training_rows_and_a_constant_feature_has_deviation_one(tmp_path):
    text = "".join(f"{number},7,{number % 5}\n" for number in range(40))
    words = ["data=csv", f"data.path={written(tmp_path, text)}", "data.val_size=10", "data.test_size=5", "device=cpu"]
    made = build(compose([*words, "data.batch_size=5"]).config)
    inputs, targets = (torch.cat(parts) for parts in zip(*made.batches["train"].epoch(0), strict=True))
    assert len(inputs) == 25
    assert inputs[:, 0].mean().abs() < 1e-6
    assert inputs[:, 0].std(correction=0) == pytest.approx(1, abs=1e-6)
    assert inputs[:, 1].abs().max() == 0
    assert targets.std(correction=0) == pytest.approx(1, abs=1e-6)
    val = torch.cat([inputs for inputs, _ in made.batches["val"].epoch(0)])
    assert val[:, 0].mean().abs() > 1e-4


def test_a_column_of_names_gives_classes(tmp_path, capsys):
    text = "width,kind\n" + "".join(f"{n + 10 * (n % 2)},{('oak', 'elm')[n % 2]}\n" for n in range(60))
    words = ["data=csv", f"data.path={written(tmp_path, text)}", "data.target_kind=class", "loss=cross_entropy"]
    folder = run(*words, "trainer.monitor=val_accuracy", "data.val_size=10", "data.batch_size=10", "device=cpu")
    assert "accuracy" in rows(folder)[-1]
    assert dltrain.load(folder).class_names == ["elm", "oak"]
    assert "2 classes" in (folder / "train.log").read_text()


def test_a_loaded_regression_predicts_in_the_unit_of_the_target():
    folder = run("experiment=airfoil", "device=cpu", "trainer.epochs=1")
    trained = dltrain.load(folder)
    table = np.loadtxt(AIRFOIL)
    predicted = trained.predict(table[:, :5]).numpy()
    assert predicted.shape == (1503, 1)
    assert 115 < predicted.mean() < 135
    error = np.mean((predicted - table[:, 5:]) ** 2) / table[:, 5].var()
    assert error == pytest.approx(2 * rows(folder)[-1]["loss"], rel=0.02)
    with pytest.raises(ValueError, match=r"inputs must be \(N, 5\)"):
        trained.predict(table[:, :4])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=lenet"], "model=lenet needs in_channels and image_size and num_classes, which these data do not have"),
        (["loss=cross_entropy"], "loss=cross_entropy needs num_classes, which these data do not have"),
        (["augment=flip"], "augment=flip: it changes images"),
        (["trainer.monitor=val_accuracy"], "there is no accuracy without classes; choose val_loss"),
        (["data.classes=[0,1]"], "data.classes=[0, 1]: these data have no classes"),
        (["data=csv"], "data.path=null: data=csv needs the path of a file"),
        (["data=csv", "data.path=x", "data.separator=::"], "data.separator=::: must be one character"),
        (["data=function", "loss=mse"], "loss=mse: it does not look at the function of data=function"),
        (["data=function", "loss.l2=0.5"], "l2=0.5: the model has no weights to keep small"),
        (["data=markov_text", "data.length=2", "model=ngram", "model.order=4"], "order=4 looks back 3 tokens"),
        (["model=sequential", "model.layers=[{conv: {channels: 4, kernel: 2.5}}]", "data=synthetic"], "kernel must be"),
    ],
)
def test_what_does_not_fit_numbers_is_refused(words, message, capsys):
    run("data=linear_synthetic", "device=cpu", *words, expected=78)
    assert message in capsys.readouterr().err


def test_the_loss_is_the_mean_square_and_half_of_it_as_the_notes_have_it():
    outputs, targets = torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([[0.0, 2.0], [3.0, 1.0]])
    assert mse()(outputs, targets) == (1 + 16) / 4
    assert mse(half=True)(outputs, targets) == (1 + 16) / 8
    assert mse()(outputs, torch.tensor([0, 1])) == (0 + 4 + 9 + 16) / 4, "classes are one-hot"


def test_a_linear_relation_is_found():
    data = linear_synthetic(num_features=3, num_outputs=2, noise=0.0).load()["train"]
    design = np.concatenate([data.inputs, np.ones((len(data.inputs), 1))], axis=1)
    _, residual, *_ = np.linalg.lstsq(design, data.targets, rcond=None)
    assert residual.max() < 1e-6
    made = build(compose(["data=linear_synthetic", "data.num_features=20", "data.num_outputs=10", "model=mlp"]).config)
    assert sum(parameter.numel() for parameter in made.model.parameters()) == 7_946
    assert next(islice(made.batches["train"].epoch(0), 1))[0].shape == (128, 20)


def test_a_run_finds_its_table_from_every_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "elsewhere").mkdir()
    written(tmp_path / "here", "".join(f"{number},{2 * number}\n" for number in range(30)))
    monkeypatch.chdir(tmp_path / "here")
    folder = run("data=csv", "data.path=table.txt", "data.batch_size=10", "device=cpu", "trainer.epochs=1")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["resume", str(folder), "trainer.epochs=2"]) == 0
    assert summary(folder)["epochs"] == 2
    assert main(["experiment=airfoil", "device=cpu", "trainer.epochs=1", "name=anywhere"]) == 0


def test_a_column_is_named_on_the_command_line_too(tmp_path, capsys):
    words = ["data=csv", f"data.path={written(tmp_path, PRICES)}"]
    run(*words, "data.target=price", "data.batch_size=2", "trainer.epochs=2", "device=cpu")
    assert "an epoch" in capsys.readouterr().out
    run(*words, "data.target=prize", "data.batch_size=2", "device=cpu", name="other", expected=66)
    assert "no column 'prize'; there are x, price" in capsys.readouterr().err


def test_decay_that_decays_nothing_is_said(capsys):
    run("data=function", "optim=sgd", "optim.weight_decay=0.9", "data.steps=2")
    assert "note: optim.weight_decay decays nothing" in capsys.readouterr().out
