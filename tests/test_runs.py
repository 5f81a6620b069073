"""Whole runs through the command: the run folder's contract, and every choice of every group."""

import json
import os
import signal
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import DEEPEST, LITTLE, OF_POINTS, RUN_FOLDER, networks, options, rows, summary, train
from omegaconf import OmegaConf

import dltrain
from dltrain import models
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.engine import Engine
from dltrain.run import checkpoint
from dltrain.train import evaluate, fit

SMOKE = ("trainer=smoke", "optim=adam")
SHORT = ("model=mlp", "trainer.epochs=2", "trainer.limit_train_batches=3", "trainer.log_every=2")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_run_folder_holds_what_the_design_lists():
    folder = train(*SHORT)
    assert {path.name for path in folder.iterdir()} == RUN_FOLDER
    environment = json.loads((folder / "environment.json").read_text())
    assert {"command", "python", "platform", "packages", "device", "threads", "data_fingerprint", "git"} == set(
        environment
    )
    assert len(environment["data_fingerprint"]) == 64
    log = (folder / "train.log").read_text()
    assert "epoch 2/2" in log
    assert "receptive field" in log
    assert "Result: completed" in log


def test_the_rows_keep_their_contract():
    folder = train(*SHORT)
    seen = [(row["split"], row["step"], row["epoch"]) for row in rows(folder)]
    assert seen == [
        ("train", 2, 2 / 3),
        ("train", 3, 1.0),
        ("val", 3, 1.0),
        ("train", 4, 4 / 3),
        ("train", 6, 2.0),
        ("val", 6, 2.0),
        ("test", 6, 2.0),
    ]
    for row in rows(folder):
        assert isinstance(row["step"], int)
        assert 0 <= row["accuracy"] <= 1
        assert ("lr" in row and "images_per_second" in row) == (row["split"] == "train")


def test_the_summary_says_what_the_rows_say():
    folder = train(*SHORT)
    result = summary(folder)
    assert result["status"] == "completed"
    assert result["model"] == "mlp"
    assert (result["epochs"], result["steps"], result["ranks"]) == (2, 6, 1)
    for split in ("train", "val", "test"):
        last = rows(folder, split)[-1]
        assert result[split] == {"loss": last["loss"], "accuracy": last["accuracy"]}
    best = max(rows(folder, "val"), key=lambda row: row["accuracy"])
    assert result["best"] == {"step": best["step"], "split": "val", "metric": "accuracy", "value": best["accuracy"]}
    assert result["images_per_second"] is None, "fewer than 10 steady steps"
    assert result["seconds_to_first_step"] > 0
    assert result["peak_memory_bytes"] > 1e7
    tensors, _ = checkpoint.load(folder / "checkpoints" / "step-00000006")
    assert result["weights_sha256"] == checkpoint.weights_sha256(tensors["model"])


def test_the_same_command_gives_the_same_weights_and_rows():
    first, second = (train(*SHORT, "augment=crop_flip", name=name) for name in ("a", "b"))
    assert summary(first)["weights_sha256"] == summary(second)["weights_sha256"]

    def numbers(folder):
        return [{key: row[key] for key in ("split", "step", "loss", "accuracy")} for row in rows(folder)]

    assert numbers(first) == numbers(second)
    other = train(*SHORT, "augment=crop_flip", "seed=1", name="c")
    assert summary(other)["weights_sha256"] != summary(first)["weights_sha256"]


def test_the_test_set_is_read_on_the_best_weights():
    folder = train("model=mlp", "optim=sgd", "optim.lr=3", "trainer.epochs=4", "trainer.limit_train_batches=2")
    validation = [row["accuracy"] for row in rows(folder, "val")]
    assert summary(folder)["best"]["value"] == max(validation)
    assert len(rows(folder, "test")) == 1
    loaded = dltrain.load(folder)
    config = OmegaConf.load(folder / "config.yaml")
    run = build(config)
    run.model.load_state_dict(loaded.model.state_dict())
    assert evaluate(run.engine, run.batches["test"])["loss"] == pytest.approx(rows(folder, "test")[0]["loss"], rel=1e-6)


def test_without_validation_the_last_weights_are_tested_and_it_is_said():
    folder = train(*SHORT, "data.val_size=0")
    assert summary(folder)["best"] is None
    assert summary(folder)["val"] is None
    assert summary(folder)["test"]["accuracy"] is not None
    assert "no validation split" in (folder / "train.log").read_text()


def test_a_watched_test_set_is_read_after_every_epoch():
    folder = train(*SHORT, "data.val_size=0", "trainer.watch_test=true")
    assert [row["step"] for row in rows(folder, "test")] == [3, 6]
    assert "test set is watched" in (folder / "train.log").read_text()


def test_loading_a_run_predicts_with_its_own_preprocessing():
    folder = train(*SHORT)
    trained = dltrain.load(folder)
    images = torch.randint(0, 256, (5, 40, 40), dtype=torch.uint8)
    probabilities = trained.predict(images)
    assert probabilities.shape == (5, 10)
    assert probabilities.sum(1) == pytest.approx(torch.ones(5))
    assert len(set(trained.class_names)) == 10
    assert trained.rows == rows(folder)
    assert dltrain.load("run", outputs_dir="outputs").config == trained.config
    with pytest.raises(ValueError, match="uint8"):
        trained.predict(images.float())


@pytest.mark.parametrize(("standardize", "axes"), [("channel", (0, 2, 3)), ("feature", (0,))])
def test_inputs_are_standardized_over_the_training_part_alone(standardize, axes):
    run = build(compose([*LITTLE, "model=mlp", "data.image_size=28", f"data.standardize={standardize}"]).config)
    inputs = {split: torch.cat([images for images, _ in run.batches[split].epoch(0)]) for split in ("train", "val")}
    assert inputs["train"].mean(axes).abs().max() < 1e-4
    deviation = inputs["train"].std(axes, correction=0)
    assert ((deviation - 1).abs() < 1e-3).logical_or(deviation == 0).all()
    assert inputs["val"].mean(axes).abs().max() > 1e-2


def test_a_run_folder_may_be_moved(tmp_path):
    folder = train(*SHORT)
    moved = folder.rename(tmp_path / "elsewhere")
    assert dltrain.load(moved).predict(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape == (1, 10)


def test_divergence_is_named_and_the_weights_stay_finite():
    folder = train("model=mlp", "optim=sgd", "optim.lr=1e38", "trainer.log_every=1", expected=65)
    assert summary(folder)["status"] == "diverged"
    assert all(row["loss"] is None or row["loss"] < float("inf") for row in rows(folder))
    assert rows(folder)[-1]["nonfinite_steps"] >= 1


def test_early_stopping():
    folder = train("model=mlp", "optim=sgd", "optim.lr=1e-12", "trainer.epochs=9", "trainer.early_stop=2")
    assert summary(folder)["epochs"] == 3, "the first epoch is the best, then two without a better one"
    assert summary(folder)["status"] == "completed"


def test_plateau_lowers_the_rate_when_validation_stalls():
    folder = train(
        "model=mlp", "optim=sgd", "optim.lr=1e-9", "schedule=plateau", "schedule.patience=1", "trainer.epochs=5"
    )
    rates = [row["lr"] for row in rows(folder, "train") if row["epoch"].is_integer()]
    assert rates[0] == pytest.approx(1e-9)
    assert rates[-1] < 1e-9


def test_the_smoke_check_fails_when_nothing_is_learned(capsys):
    folder = train("model=mlp", "trainer=smoke", "optim=sgd", "optim.lr=1e-30", expected=70)
    assert "did not lower the loss of batch 1" in capsys.readouterr().out
    assert summary(folder)["status"] == "failed"
    train("model=mlp", "trainer=smoke", "optim=sgd", "optim.lr=1e-30", expected=70)


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.long] if name in DEEPEST else []) for name in networks()]
)
def test_every_model_learns_in_a_smoke_run(model):
    small = ["model.arch=squeezenet1_1"] if model == "torchvision" else []
    folder = train(*SMOKE, f"model={model}", *small)
    assert summary(folder)["steps"] == 12
    assert "check passed" in (folder / "train.log").read_text()


@pytest.mark.parametrize("group", ["optim", "schedule", "init", "augment", "loss"])
def test_every_option_of_a_group_trains(group):
    for option in sorted({*options(group)} - OF_POINTS - {"objective"}):
        if (group, option) == ("init", "run"):  # which needs one
            continue
        run = build(compose([*LITTLE, "model=mlp", "data.batch_size=32", f"{group}={option}"]).config)
        events = list(islice(fit(run.engine, run.batches["train"], epochs=1, log_every=1), 3))
        assert all(event.row["loss"] is not None and "nonfinite_steps" not in event.row for event in events), option


@pytest.mark.parametrize(
    "overrides",
    [
        ("optim.weight_decay=0.1", "optim.decay_bias_and_norm=true"),
        ("loss.l2=0.01",),
        ("loss.l2=0.01", "loss.l2_on=last"),
        ("loss.label_smoothing=0.1",),
        ("model.dropout=0.5",),
        ("model.dropout=0.5", "model.dropout_form=notes"),
        ("trainer.clip_norm=0.1",),
        ("trainer.clip_value=0.01",),
        ("trainer.ema=0.9",),
        ("init=constant",),
        ("init=normal", "init.layers=linear"),
        ("data.train_size=200",),
        ("data.standardize=feature",),
        ("data.standardize=none",),
        ("augment=mixup",),
        ("schedule=cosine",),
        ("schedule.warmup=3",),
        ("trainer.accumulate=2",),
    ],
    ids=" ".join,
)
def test_every_regularization_changes_the_weights(overrides):
    few = (
        "model=mlp",
        "trainer.epochs=1",
        "trainer.limit_train_batches=4",
        "data.batch_size=32",
        "optim=sgd",
        "optim.lr=0.1",
    )
    plain = train(*few, name="plain")
    changed = train(*few, *overrides, name="changed")
    if "trainer.ema=0.9" in overrides:
        assert (changed / "checkpoints/step-00000004/ema.safetensors").is_file()
        assert summary(changed)["val"] != summary(plain)["val"]
    else:
        assert summary(changed)["weights_sha256"] != summary(plain)["weights_sha256"]


def test_some_classes():
    folder = train(*SHORT, "data.classes=[0,6]", "data.batch_size=16", "data.val_size=16")
    assert len(dltrain.load(folder).class_names) == 2


def test_a_last_batch_of_one_example_does_not_crash_batch_norm_on_vectors():
    folder = train("model=mlp", "model.norm=batch", "data.train_size=65", "data.batch_size=32", "trainer.epochs=1")
    assert summary(folder)["steps"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_ends_the_run_with_a_checkpoint(number, code, monkeypatch):
    step = Engine.step

    def step_and_signal(self, batch, position):
        step(self, batch, position)
        if position == 2:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Engine, "step", step_and_signal)
    folder = train("model=mlp", "trainer.epochs=50", expected=code)
    assert summary(folder)["status"] == "interrupted"
    assert summary(folder)["steps"] == 3
    assert summary(folder)["test"] is None
    assert checkpoint.load(folder / "checkpoints/step-00000003")[1]["step"] == 3


def test_tensorboard_gets_every_row():
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(*SHORT, "logger=tensorboard")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("val/accuracy")] == [3, 6]
    assert events.Scalars("test/loss")[0].value == pytest.approx(rows(folder, "test")[0]["loss"])


def test_checkpoints_are_kept_as_asked():
    folder = train("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=5", "trainer.checkpoint_every=1 step")
    assert [path.name for path in checkpoint.steps(folder / "checkpoints")] == ["step-00000004", "step-00000005"]


def test_the_same_command_again_finds_its_run_complete(capsys):
    folder = train(*SHORT)
    before = (folder / "metrics.jsonl").read_bytes()
    train(*SHORT)
    assert "is complete" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_name_that_another_run_has_is_refused(capsys):
    folder = train(*SHORT)
    before = (folder / "metrics.jsonl").read_bytes()
    train(*SHORT, "optim.lr=0.5", expected=78)
    assert "optim.lr=0.5: the run in outputs/runs/run has taken its steps with 0.001" in capsys.readouterr().err
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("overrides", ["schedule=plateau", "trainer.early_stop=2"])
def test_what_follows_validation_needs_some(overrides, capsys):
    train(*SHORT, overrides, "data.val_size=0", expected=78)
    assert "data.val_size=0 leaves none" in capsys.readouterr().err


def test_runs_without_a_name_get_folders_of_their_own():
    few = ["data=synthetic", "data.num_train=300", "data.val_size=32", "data.num_test=32", "model=mlp"]
    short = ["trainer.epochs=1", "trainer.limit_train_batches=1", "data.image_size=28", "device=cpu"]
    assert [main([*few, *short]) for _ in range(2)] == [0, 0]
    assert len(list(Path("outputs/runs").iterdir())) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.batch_size=3", "trainer.microbatch=2", "data.train_size=30"),
        ("data.batch_size=2", "trainer.accumulate=2", "data.train_size=31"),
    ],
    ids=" ".join,
)
def test_no_part_of_a_batch_is_a_single_example(overrides):
    folder = train("model=mlp", "model.norm=batch", "trainer.epochs=1", *overrides)
    assert summary(folder)["status"] == "completed"


def test_limits_count_batches_of_which_several_make_a_step():
    folder = train("model=mlp", "trainer.epochs=1", "trainer.accumulate=4", "trainer.limit_train_batches=8")
    assert summary(folder)["steps"] == 2


def test_a_smoke_run_takes_its_steps_whatever_the_number_of_examples():
    folder = train("model=mlp", *SMOKE, "data.train_size=40", "data.batch_size=16")
    assert summary(folder)["steps"] == 12


def test_a_diverged_run_keeps_its_best_weights_and_last_good_numbers():
    blowing_up = ("schedule=piecewise", "schedule.boundaries=[12]", "schedule.values=[1,1e38]", "optim=sgd")
    few = ("model=mlp", "trainer.epochs=9", "trainer.limit_train_batches=4", "trainer.log_every=1")
    folder = train(*few, *blowing_up, "trainer.checkpoint_every=100 epochs", expected=65)
    result = summary(folder)
    assert result["train"]["loss"] is not None
    best = folder / f"checkpoints/step-{result['best']['step']:08d}"
    assert checkpoint.load(best)[1]["step"] == result["best"]["step"]
    assert dltrain.load(folder).predict(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape == (1, 10)


def test_loading_passes_over_a_damaged_checkpoint():
    folder = train(*SHORT, "trainer.checkpoint_every=1 step")
    *_, newest = checkpoint.steps(folder / "checkpoints")
    with (newest / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert dltrain.load(folder).predict(torch.zeros(1, 28, 28, dtype=torch.uint8)).shape == (1, 10)


@pytest.mark.parametrize(("accumulate", "limit", "steps", "examples"), [(1, 7, 7, 112), (3, 7, 3, 112), (4, 8, 2, 128)])
def test_a_limit_is_a_count_of_batches_however_many_make_a_step(accumulate, limit, steps, examples):
    words = [f"trainer.accumulate={accumulate}", f"trainer.limit_train_batches={limit}", "data.batch_size=16"]
    run = build(compose([*LITTLE, "model=mlp", *words]).config)
    assert len(run.batches["train"]) == steps
    assert sum(len(labels) for _, labels in run.batches["train"].epoch(0)) == examples


def test_batches_that_take_turns_are_augmented_once():
    run = build(compose([*LITTLE, *SMOKE, "model=mlp", "augment=mixup"]).config)
    batches = [images for images, _ in run.batches["train"].epoch(0)]
    assert torch.equal(batches[0], batches[2])
    assert not torch.equal(batches[0], batches[1])


def test_the_summary_says_that_the_test_set_was_watched():
    assert summary(train(*SHORT, "trainer.watch_test=true"))["watched_test"] is True
    assert summary(train(*SHORT, name="other"))["watched_test"] is False


def test_predicting_takes_any_shape_of_image_and_refuses_other_channels():
    run = dltrain.load(train(*SHORT))
    assert run.predict(torch.zeros(3, 50, 60, dtype=torch.uint8)).shape == (3, 10)
    with pytest.raises(ValueError, match="must have 1 channels, not 3"):
        run.predict(torch.zeros(2, 3, 28, 28, dtype=torch.uint8))
    assert len(repr(run)) < 300


def test_short_runs_have_rows_enough_for_a_curve():
    folder = train("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=5")
    assert [row["step"] for row in rows(folder, "train")] == [1, 2, 3, 4, 5]


def test_divergence_says_what_happened_and_what_to_do(capsys):
    folder = train(*SHORT, "optim=sgd", "optim.lr=1e38", expected=65)
    assert "a loss or gradient up to step 2 was not finite: try a lower optim.lr" in summary(folder)["cause"]
    assert summary(folder)["cause"] in capsys.readouterr().out


def test_a_model_with_other_outputs_than_classes_is_refused(monkeypatch, capsys):
    mlp = models.mlp

    def forgetful(*, input_shape, num_outputs, hidden_sizes, activation, dropout, dropout_form, norm):
        return mlp(input_shape=input_shape, num_outputs=num_outputs - 1)

    monkeypatch.setattr(models, "mlp", forgetful)
    train(*SHORT, expected=78)
    assert "the model makes (2, 9) of 2 inputs, and must make (2, 10)" in capsys.readouterr().err
