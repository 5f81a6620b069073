"""Schedules against closed forms, and against torch.optim.lr_scheduler where the definitions agree."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from dltrain import schedules
from dltrain.schedules import Schedule, warmup

STEPS_PER_EPOCH, TOTAL_STEPS = 7, 70


def multipliers(schedule: Schedule) -> list[float]:
    return [schedule(step, STEPS_PER_EPOCH, TOTAL_STEPS) for step in range(TOTAL_STEPS)]


CLOSED_FORMS: list[tuple[Schedule, Callable[[int], float]]] = [
    (schedules.constant(), lambda step: 1.0),
    (schedules.step(size=3, gamma=0.5), lambda step: 0.5 ** (step // 21)),
    (schedules.multistep(milestones=[2, 9], gamma=0.1), lambda step: 0.1 ** ((step >= 14) + (step >= 63))),
    (schedules.linear(final=0.2), lambda step: 1 - 0.8 * step / 70),
    (schedules.cosine(final=0.1), lambda step: 0.1 + 0.45 * (1 + math.cos(math.pi * step / 70))),
    (
        schedules.piecewise(boundaries=[10, 30], values=[1, 0.5, 0]),
        lambda step: 1.0 if step < 10 else 0.5 if step < 30 else 0.0,
    ),
    (
        schedules.piecewise(boundaries=[1, 2.5], values=[1, 0.5, 0.2], unit="epoch"),
        lambda step: 1.0 if step < 7 else 0.5 if step < 17.5 else 0.2,
    ),
    (schedules.exponential(decay=0.03), lambda step: math.exp(-0.03 * step)),
    (schedules.exponential(decay=0.03, unit="epoch"), lambda step: math.exp(-0.03 * step / 7)),
    (schedules.polynomial(b=0.1, c=0.5), lambda step: 1 / math.sqrt(1 + 0.1 * step)),
    (schedules.polynomial(b=0.1, c=2, unit="epoch"), lambda step: (1 + 0.1 * step / 7) ** -2),
    (schedules.inverse_sqrt(timescale=9), lambda step: 1.0 if step < 9 else 3 / math.sqrt(step)),
    (
        schedules.inverse_sqrt(timescale=4, unit="epoch"),
        lambda step: min(1.0, 2 / math.sqrt(max(step, 1) / 7)),
    ),
]


@pytest.mark.parametrize("index", range(len(CLOSED_FORMS)))
def test_closed_form(index: int) -> None:
    schedule, closed_form = CLOSED_FORMS[index]
    assert multipliers(schedule) == pytest.approx([closed_form(step) for step in range(TOTAL_STEPS)], rel=1e-12)


def test_onecycle_rises_then_falls() -> None:
    values = multipliers(schedules.onecycle(rise=0.5, start=0.1, final=0.01))
    assert values[0] == pytest.approx(0.1)
    assert values[35] == max(values) == 1
    assert values[:36] == sorted(values[:36])
    assert values[35:] == sorted(values[35:], reverse=True)
    assert values[14] == pytest.approx(0.1 + 0.45 * (1 - math.cos(math.pi * 14 / 35)))
    assert values[56] == pytest.approx(0.01 + 0.495 * (1 + math.cos(math.pi * 21 / 35)))


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("schedule", "of_torch", "per_epoch"),
    [
        (schedules.step(size=3, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5), True),
        (schedules.multistep(milestones=[2, 5]), lambda o: lr_scheduler.MultiStepLR(o, [2, 5], 0.1), True),
        (schedules.linear(final=0.3), lambda o: lr_scheduler.LinearLR(o, 1, 0.3, TOTAL_STEPS), False),
        (schedules.cosine(final=0.2), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL_STEPS, 0.2), False),
        (
            warmup(schedules.constant(), warmup=10),
            lambda o: lr_scheduler.LinearLR(o, 0.1, 1, total_iters=9),
            False,
        ),
    ],
)
def test_agrees_with_torch(schedule: Schedule, of_torch: Callable[..., Any], per_epoch: bool) -> None:
    sgd = optimizer()
    scheduler = of_torch(sgd)
    for step in range(TOTAL_STEPS):
        assert schedule(step, STEPS_PER_EPOCH, TOTAL_STEPS) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        if not per_epoch or (step + 1) % STEPS_PER_EPOCH == 0:
            scheduler.step()


@pytest.mark.parametrize(("metric", "mode"), [("loss", "min"), ("accuracy", "max")])
def test_plateau_agrees_with_torch(metric: str, mode: Any) -> None:
    plateau = schedules.plateau(factor=0.5, patience=1, threshold=0.01, metric=metric, final=0.2)
    sgd = optimizer()
    scheduler = lr_scheduler.ReduceLROnPlateau(
        sgd, mode, 0.5, patience=1, threshold=0.01, threshold_mode="abs", min_lr=0.2
    )
    seen = []
    for value in [math.nan, 3, 2, 2.005, 1.995, 2.02, math.nan, 2, 1.9, 1, 1, 1, 1, 1, 1, 1, 1]:
        plateau.observe(value)
        scheduler.step(value)
        seen.append(plateau(0, 1, 1))
        assert seen[-1] == sgd.param_groups[0]["lr"]
    assert seen[-1] == 0.2


def test_plateau_resumes() -> None:
    first, second = schedules.plateau(patience=0), schedules.plateau(patience=0)
    assert first.state_dict() == {"multiplier": 1.0, "best": None, "waited": 0}
    for value in (1.0, 1.0):
        first.observe(value)
    second.load_state_dict(first.state_dict())
    assert second(0, 1, 1) == first(0, 1, 1) == 0.1
    second.observe(0.9999)
    first.observe(0.9999)
    assert second(0, 1, 1) == first(0, 1, 1)


@pytest.mark.parametrize("ramp", [14, 0.2])
def test_warmup_ramps_to_the_schedules_own_value(ramp: float) -> None:
    schedule = schedules.cosine()
    values = multipliers(warmup(schedule, warmup=ramp))
    top = schedule(13, STEPS_PER_EPOCH, TOTAL_STEPS)
    assert values[:14] == pytest.approx([top * (step + 1) / 14 for step in range(14)])
    assert values[13:] == multipliers(schedule)[13:]


def test_warmup_of_nothing_is_the_schedule() -> None:
    schedule = schedules.constant()
    assert warmup(schedule, warmup=0) is schedule
    assert multipliers(warmup(schedule, warmup=0.001)) == multipliers(schedule)


def test_warmup_passes_on_what_plateau_learns() -> None:
    plateau = schedules.plateau(patience=0)
    schedule = warmup(plateau, warmup=2)
    assert [schedule(step, 1, 10) for step in range(3)] == [0.5, 1, 1]
    plateau.observe(1.0)
    plateau.observe(1.0)
    assert schedule(3, 1, 10) == 0.1


@pytest.mark.parametrize(
    ("factory", "keywords", "message"),
    [
        (schedules.step, {"size": 0}, "size must be 1 epoch or more, not 0"),
        (schedules.step, {"gamma": 0.0}, "gamma must be above 0, not 0.0"),
        (schedules.multistep, {"milestones": [5, 3]}, r"milestones must be .* not \[5, 3\]"),
        (schedules.linear, {"final": -0.1}, "final must be 0 or more"),
        (schedules.cosine, {"final": math.nan}, "final must be 0 or more, not nan"),
        (schedules.onecycle, {"rise": 1.0}, "rise must be between 0 and 1"),
        (schedules.piecewise, {"values": [1.0]}, "values must be 3 numbers"),
        (schedules.piecewise, {"boundaries": [-1, 4]}, "boundaries must be"),
        (schedules.exponential, {"decay": -1.0}, "decay must be 0 or more"),
        (schedules.exponential, {"unit": "day"}, "unit must be step or epoch, not day"),
        (schedules.polynomial, {"b": -1.0}, "b must be 0 or more"),
        (schedules.inverse_sqrt, {"timescale": 0.0}, "timescale must be above 0"),
        (schedules.plateau, {"factor": 1.0}, "factor must be between 0 and 1"),
        (schedules.plateau, {"metric": "up"}, "metric must be loss or accuracy, not up"),
    ],
)
def test_impossible_values_are_refused(factory: Any, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factory(**keywords)


@pytest.mark.parametrize("value", [-1, -0.1, 1.5, 1.0, math.nan])
def test_impossible_warmups_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="warmup must be steps"):
        warmup(schedules.constant(), warmup=value)
