"""Whole runs with a planted bottleneck, which must be named, and a stopwatch beside one."""

import os
import signal
import time
from statistics import harmonic_mean

import pytest
import torch
from helpers import rows, summary, train
from torch import Tensor

from dltrain import losses
from dltrain.data import augment
from dltrain.data.preparation import Pixels
from dltrain.data.sources import HostExamples
from dltrain.engine import Engine
from dltrain.run.record import Record

MLP = ("model=mlp", "trainer.epochs=1", "trainer.overfit_batches=2")
NUMBERS = ("images_per_second", "flops_per_second", "waiting_for_data", "bottleneck")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slow_loader_is_named(workers, monkeypatch, capsys):
    load = HostExamples.__getitem__

    def slow(self, place):
        time.sleep(0.05)
        return load(self, place)

    monkeypatch.setattr(HostExamples, "__getitem__", slow)
    streamed = ("data.resident_limit=0", f"data.workers={workers}")
    result = summary(train(*MLP, *streamed, "trainer.limit_train_batches=25"))
    assert result["bottleneck"].startswith("waiting for data, ")
    assert 0.5 < result["waiting_for_data"] < 1.0
    assert f"bottleneck: {result['bottleneck']}" in " ".join(capsys.readouterr().out.split())


def test_a_result_read_in_every_step_is_named(monkeypatch):
    def reading(*, label_smoothing: float = 0.0) -> losses.Loss:
        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            value = torch.nn.functional.cross_entropy(logits, targets)
            return value if value.item() < 1e9 else value.new_zeros(())

        return loss

    monkeypatch.setattr(losses, "cross_entropy", reading)
    result = summary(train(*MLP, "trainer.limit_train_batches=25"))
    line = reading.__code__.co_firstlineno + 3
    assert f"test_throughput.py:{line} reads a result in every step" in result["bottleneck"]


def reads_a_number(values: Tensor) -> float:
    return 0 * values.mean().item()


def masks(values: Tensor) -> Tensor:
    return 0 * values[values > 0].sum()


def counts(values: Tensor) -> int:
    return 0 * len(values.nonzero())


@pytest.mark.parametrize("reading", [reads_a_number, masks, counts])
@pytest.mark.parametrize("where", ["augmentation", "preparation, of what a worker reads"])
def test_a_result_read_in_the_making_of_a_batch_is_named(reading, where, monkeypatch):
    def flip(*, flip_probability: float = 0.5) -> augment.Augment:
        return lambda images, labels, generator: (images + reading(images), labels)

    inputs, words = Pixels.inputs, ("augment=flip",)
    if where == "augmentation":
        monkeypatch.setattr(augment, "flip", flip)
    else:
        monkeypatch.setattr(Pixels, "inputs", lambda self, stored: inputs(self, stored) + reading(stored.float()))
        words = ("data.resident_limit=0", "data.workers=1")
    result = summary(train(*MLP, *words, "trainer.limit_train_batches=14"))
    place = f"test_throughput.py:{reading.__code__.co_firstlineno + 1}"
    assert f"; {place} reads a result in the making of every batch, which would make a GPU" in result["bottleneck"]
    assert "in every step" not in result["bottleneck"]


def test_a_tiny_batch_is_named():
    tiny = ("model.hidden_sizes=[4,4,4,4,4,4]", "data.batch_size=1", "optim=sgd", "trainer.limit_train_batches=100")
    for number in range(3):  # what an operation costs is measured after the run, when the machine may be busy or not
        sentence = summary(train(*MLP, *tiny, name=f"run{number}"))["bottleneck"]
        if sentence.startswith("the batch is too small: "):
            break
    assert sentence.startswith("the batch is too small: ")
    assert sentence.endswith("; raise data.batch_size")


def test_slow_recording_is_named(monkeypatch):
    add = Record.add

    def slow(self, row):
        time.sleep(0.05)
        add(self, row)

    monkeypatch.setattr(Record, "add", slow)
    result = summary(train(*MLP, "trainer.limit_train_batches=25", "trainer.log_every=1"))
    assert result["bottleneck"].startswith("recording, ")
    assert result["images_per_second"] < 128 / 0.05


def test_computing_is_what_is_left():
    result = summary(train("model=lenet", "trainer.epochs=3", "data.batch_size=100"))
    assert result["bottleneck"].startswith("computing, ")
    assert "reads a result" not in result["bottleneck"]
    assert result["waiting_for_data"] < 0.3
    assert result["flops_per_second"] == result["images_per_second"] * result["train_flops_per_image"]


def test_too_few_steps_tell_nothing(capsys):
    result = summary(train(*MLP, "trainer.limit_train_batches=11"))
    assert [result[name] for name in NUMBERS] == [None] * 4
    assert result["train_flops_per_image"] == 3 * 2 * (1024 * 256 + 256 * 10) - 2 * 1024 * 256
    shown = capsys.readouterr().out
    assert "memory  " in shown
    assert "speed  " not in shown
    assert "bottleneck" not in shown


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_the_rate_is_that_of_a_stopwatch(model):
    """In one of three tries: what else the machine does may come between the two clocks."""
    for number in range(3):
        expected, found, steady = measured_by_both(model, name=f"run{number}")
        if found == pytest.approx(expected, rel=0.15) and steady == pytest.approx(expected, rel=0.15):
            return
    pytest.fail(f"the stopwatch has {expected:.1f} images/s, the summary {found:.1f}, the rows {steady:.1f}")


def measured_by_both(model: str, *, name: str) -> tuple[float, float, float]:
    """Five seconds of steps and rows with their data, from outside: from the end of the second step to the last's.

    Images per second of the stopwatch, of the summary and of the rows.
    """
    times, examples, signals, step = [], [], [], Engine.step

    def watched(self, batch, number):
        step(self, batch, number)
        if not signals:  # afterwards, the cost of an operation is measured
            times.append(time.perf_counter())
            examples.append(len(batch[1]))
            if times[-1] - times[:2][-1] > 5:
                signals.append(os.kill(os.getpid(), signal.SIGINT))

    endless = ("trainer.overfit_batches=2", "trainer.limit_train_batches=100000", "trainer.log_every=5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", watched)
        folder = train(f"model={model}", "data.batch_size=64", *endless, name=name, expected=130)
    seconds = times[-1] - times[1]
    steady = [row["images_per_second"] for row in rows(folder, "train")[1:]]
    return sum(examples[2:]) / seconds, summary(folder)["images_per_second"], harmonic_mean(steady)
