"""The loop: when events and rows come, what rows say, that a run goes on as if it had not stopped."""

import copy
from itertools import islice
from typing import Any

import pytest
import torch
from engines import batches, engine, equal, network
from helpers import optimizers
from torch import nn

from dltrain.engine import Engine
from dltrain.train import Monitor, evaluate, fit

Row = dict[str, Any]
STEPS = 5  # of an epoch of `batches()`


def rows(events) -> list[Row]:
    """Rows without what time decides."""
    found = [dict(event.row) for event in events if event.row]
    for row in found:
        row.pop("images_per_second", None)
    return found


def plain_loop(model: nn.Module, optimizer: torch.optim.Optimizer, *, epochs: int) -> list[tuple[float, int, int]]:
    """The loop one would write by hand; returns each step's summed loss, right answers and examples."""
    seen = []
    for epoch in range(epochs):
        for images, labels in batches().epoch(epoch):
            torch.manual_seed(hash((0, len(seen))))
            logits = model(images)
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right = (logits.argmax(1) == labels).sum().item()
            seen.append((loss.item() * len(labels), int(right), len(labels)))
    return seen


PLAIN_OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.01, fused=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.001, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, alpha=0.9),
}


@pytest.mark.parametrize("option", PLAIN_OPTIMIZERS)
def test_training_is_a_plain_loop_bit_for_bit(option: str) -> None:
    ours, plain = engine(option), network()
    list(fit(ours, batches(), epochs=2))
    plain_loop(plain, PLAIN_OPTIMIZERS[option](plain.parameters()), epochs=2)
    assert equal(ours.model.state_dict(), plain.state_dict())


def test_rows_are_over_the_examples_since_the_row_before_and_at_an_epochs_end_over_the_epoch() -> None:
    plain = network()
    seen = plain_loop(plain, PLAIN_OPTIMIZERS["sgd"](plain.parameters()), epochs=2)
    windows = {2: (0, 2), 4: (2, 4), 5: (0, 5), 6: (5, 6), 8: (6, 8), 10: (5, 10)}
    found = rows(fit(engine("sgd"), batches(), epochs=2, log_every=2))
    assert [row["step"] for row in found] == list(windows)
    for row in found:
        first, last = windows[row["step"]]
        loss, right, examples = (sum(column) for column in zip(*seen[first:last], strict=True))
        assert row["loss"] == pytest.approx(loss / examples, rel=1e-6)
        assert row["accuracy"] == right / examples
        assert row["epoch"] == row["step"] / STEPS


@pytest.mark.parametrize(
    ("log_every", "logged"), [(1, range(1, 11)), (3, [3, 5, 6, 9, 10]), (5, [5, 10]), (99, [5, 10])]
)
def test_events_come_after_every_step_and_evaluation_and_rows_when_they_are_due(log_every: int, logged) -> None:
    evaluations = {"val": batches(20), "test": batches(12)}
    events = list(fit(engine(), batches(), epochs=2, evaluations=evaluations, log_every=log_every))
    assert [event.step for event in events] == [1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 10, 10, 10]
    assert all(event.epoch == event.step / STEPS for event in events)
    found = rows(events)
    assert [row["step"] for row in found if row["split"] == "train"] == list(logged)
    assert [(row["split"], row["step"]) for row in found if row["split"] != "train"] == [
        ("val", 5),
        ("test", 5),
        ("val", 10),
        ("test", 10),
    ]
    assert len({(row["split"], row["step"]) for row in found}) == len(found)
    assert (found[-1]["split"], found[-1]["step"]) == ("test", 10)


def test_an_epoch_of_one_step_has_one_train_row() -> None:
    found = rows(fit(engine(), batches(limit=1), epochs=3, log_every=1))
    assert [row["step"] for row in found] == [1, 2, 3]


def test_train_rows_carry_the_rate_of_their_last_step_and_the_speed() -> None:
    ours = engine("sgd", lr=0.5, schedule=lambda step: 1 / (1 + step))
    found = [event.row for event in fit(ours, batches(), epochs=2, log_every=1) if event.row]
    assert [row["lr"] for row in found] == [0.5 / (1 + step) for step in range(10)]
    assert all(row["images_per_second"] > 0 for row in found)


def test_every_group_follows_the_schedule_from_its_own_rate() -> None:
    ours = engine("muon", schedule=lambda step: 0.5**step)
    list(fit(ours, batches(), epochs=1))
    assert [group["lr"] for group in ours.optimizer.param_groups] == [0.02 / 16, 0.0003 / 16, 0.0003 / 16]


@pytest.mark.parametrize("stop", [3, 5, 7])
def test_a_loop_that_was_stopped_goes_on_as_if_it_had_not(stop: int) -> None:
    whole, parted = engine("adam"), engine("adam")
    expected = rows(fit(whole, batches(), epochs=2, log_every=2))
    first = list(islice(fit(parted, batches(), epochs=2, log_every=2), stop))
    torch.rand(7)
    second = fit(parted, batches(), epochs=2, log_every=2, start=stop)
    assert [*rows(first), *rows(second)] == expected
    assert equal(whole.model.state_dict(), parted.model.state_dict())


def continued(state: dict[str, Any], option: str, start: int) -> tuple[Engine, list[Row]]:
    """A new engine of other weights that loads a state and goes on."""
    fresh = engine(option, ema=0.9)
    with torch.no_grad():
        for parameter in fresh.model.parameters():
            parameter.add_(1.0)
    fresh.load_state_dict(state)
    return fresh, rows(fit(fresh, batches(), epochs=2, log_every=3, start=start))


@pytest.mark.parametrize("option", optimizers())
def test_a_new_engine_goes_on_from_a_state_in_the_middle_of_an_epoch(option: str) -> None:
    whole = engine(option, ema=0.9)
    expected = rows(fit(whole, batches(), epochs=2, log_every=3))
    stopped = engine(option, ema=0.9)
    list(islice(fit(stopped, batches(), epochs=2, log_every=3), 7))
    fresh, found = continued(copy.deepcopy(stopped.state_dict()), option, start=7)
    assert found == [row for row in expected if row["step"] > 7]
    ours, theirs = fresh.state_dict(), whole.state_dict()
    assert all(equal(ours[key], theirs[key]) for key in ("model", "optim", "ema"))


def test_nothing_is_left_to_do_after_the_last_step() -> None:
    assert not list(fit(engine(), batches(), epochs=2, start=10))


def test_an_evaluation_is_the_mean_over_all_examples() -> None:
    ours = engine()
    served = batches(23)
    row = evaluate(ours, served)
    ours.model.eval()
    with torch.no_grad():
        images, labels = (torch.cat(parts) for parts in zip(*served.epoch(0), strict=True))
        logits = ours.model(images)
    assert row == {
        "loss": pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5),
        "accuracy": (logits.argmax(1) == labels).sum().item() / 23,
    }


def test_an_evaluation_changes_nothing() -> None:
    ours = engine()
    before = copy.deepcopy(ours.state_dict())
    evaluate(ours, batches(23))
    assert ours.model.training
    assert equal(ours.state_dict()["model"], before["model"])


def test_an_evaluation_reads_the_averaged_weights() -> None:
    averaged, plain = engine(ema=0.5, lr=0.5), engine(lr=0.5)
    for each in (averaged, plain):
        list(fit(each, batches(), epochs=1))
    assert evaluate(averaged, batches(23)) != evaluate(plain, batches(23))
    plain.model.load_state_dict(averaged.weights())
    assert evaluate(averaged, batches(23)) == evaluate(plain, batches(23))


def test_an_evaluation_that_is_not_a_number_says_null() -> None:
    ours = engine()
    with torch.no_grad():
        ours.model[6].bias.fill_(float("nan"))
    assert evaluate(ours, batches(23))["loss"] is None


def observed(name: str, values: list[float | None]) -> tuple[Monitor, list[bool | None]]:
    monitor = Monitor(name)
    split, metric = name.split("_")
    verdicts = [
        monitor.observe({"split": split, "step": step, metric: value}) for step, value in enumerate(values, start=1)
    ]
    return monitor, verdicts


@pytest.mark.parametrize(
    ("name", "values", "verdicts", "best", "stalled"),
    [
        ("val_accuracy", [0.5, 0.4, 0.6, 0.6], [True, False, True, False], (3, 0.6), 1),
        ("val_loss", [0.5, 0.4, 0.6, 0.4], [True, True, False, False], (2, 0.4), 2),
        ("val_loss", [None, 0.5, None, 0.6], [False, True, False, False], (2, 0.5), 2),
    ],
)
def test_a_monitor_knows_the_best_and_how_long_ago_it_was(name, values, verdicts, best, stalled) -> None:
    monitor, found = observed(name, values)
    assert found == verdicts
    assert monitor.best() == {"step": best[0], "split": "val", "metric": name[4:], "value": best[1]}
    assert monitor.stalled == stalled


def test_a_monitor_looks_at_its_own_number_alone() -> None:
    monitor = Monitor("val_accuracy")
    assert monitor.observe({"split": "train", "step": 1, "accuracy": 0.9}) is None
    assert monitor.observe({"split": "val", "step": 1, "loss": 0.9}) is None
    assert monitor.best() is None
