"""Optimization landscapes: functions, the optimizers that look at curvature or search, and the notes' check values."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import OF_POINTS, SEARCHING, rows, run, summary
from torch import nn

from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data.convexity import convexity
from dltrain.landscapes import FUNCTIONS, landscape
from dltrain.optim.line_search import Trial, armijo, strong_wolfe
from dltrain.report import sweep_picture
from dltrain.report.path import draw_path
from dltrain.report.sweep_picture import draw_sweep
from dltrain.train import fit

CONDITIONS = [(1, 1.0), (2, 100.0), (5, 30.0), (10, 100.0)]


def walk(function: str, option: str, *words: str, steps: int = 20) -> np.ndarray:
    """The points of a run in memory (steps + 1, dimension)."""
    named = [f"data.function={function}", f"data.steps={steps}", f"optim={option}"]
    made = build(compose(["data=function", *named, *words]).config)
    position = made.engine.parameters[0]
    points = [position.detach().clone()]
    for _ in fit(made.engine, made.batches["train"], epochs=1):
        points.append(position.detach().clone())
    return torch.stack(points).numpy()


def recorded(*words: str) -> list[dict[str, Any]]:
    """The rows of a run in memory that evaluates after every step."""
    made = build(compose(["data=function", *words]).config)
    how: dict[str, Any] = {"evaluations": {"val": made.batches["val"]}, "evaluate_at": lambda step: True}
    events = fit(made.engine, made.batches["train"], epochs=1, log_every=1, **how)
    return [event.row for event in events if event.row]


def gradient_norms(function: str, points: np.ndarray, **keywords: Any) -> np.ndarray:
    x = torch.tensor(points, requires_grad=True)
    landscape(function, **keywords).values(x, torch).sum().backward()
    return x.grad.norm(dim=1).numpy()


def quadratic(dimension: int, condition: float) -> tuple[str, str]:
    return f"data.dimension={dimension}", f"data.condition={condition}"


# ---- functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_and_torch_agree_and_minima_are_minima(name):
    found = landscape(name)
    points = np.random.default_rng(0).uniform(*np.array(found.domain).T, (50, found.dimension))
    values = found.values(points, np)
    np.testing.assert_allclose(found.values(torch.tensor(points), torch).numpy(), values, rtol=1e-12)
    for minimum in found.minima:
        x = torch.tensor(minimum, dtype=torch.float64)
        assert gradient_norms(name, x[None].numpy())[0] < 1e-6
        hessian = torch.autograd.functional.hessian(lambda x: found.values(x, torch), x)
        assert torch.linalg.eigvalsh(hessian)[0] > 0
        if found.lowest is not None:
            assert found.values(np.array(minimum), np) == pytest.approx(found.lowest, abs=1e-9)


def test_the_notes_values():
    wave, tanh = landscape("x_cos_pi_x"), landscape("tanh")
    found = [(point[0], float(wave.values(np.array(point), np))) for point in wave.minima]
    assert found == [pytest.approx(pair, abs=5e-6) for pair in [(-0.27385, -0.17860), (1.09041, -1.04672)]]
    assert gradient_norms("tanh", np.array([tanh.start])) == pytest.approx(0.00134, abs=5e-6)


@pytest.mark.parametrize(("dimension", "condition"), CONDITIONS)
def test_a_quadratic_has_its_condition_and_no_axis_is_an_eigenvector(dimension, condition):
    found = landscape("quadratic", dimension=dimension, condition=condition)
    x = torch.zeros(dimension, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: found.values(x, torch), x)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert (eigenvalues[-1] / eigenvalues[0]).item() == pytest.approx(condition, rel=1e-9)
    assert dimension == 1 or (hessian - hessian.diag().diag()).abs().sum(0).min() > 1e-3


@pytest.mark.parametrize(
    ("name", "definition", "sublevel", "eigenvalue"),
    [
        ("bowl", False, False, False),
        ("parabola", False, False, False),
        ("cosh", False, False, False),
        ("quadratic", False, False, False),
        ("saddle", True, True, True),
        ("x_cos_pi_x", True, True, True),
        ("cubic", True, False, True),
    ],
)
def test_convexity_by_three_tests(name, definition, sublevel, eigenvalue):
    found = convexity(landscape(name))
    assert (found.definition is not None, found.sublevel is not None, found.is_negative) == (
        definition,
        sublevel,
        eigenvalue,
    )
    if violation := found.definition:
        f = landscape(name).values
        x, y, a = violation.x, violation.y, violation.share
        assert f(a * x + (1 - a) * y, np) > a * f(x, np) + (1 - a) * f(y, np)


# ---- paths: the notes' numbers


@pytest.mark.parametrize(
    ("words", "steps", "end"),
    [
        (("parabola", "sgd", "optim.lr=0.2"), 10, [0.0604662]),
        (("bowl", "sgd", "optim.lr=0.1"), 20, [-0.0576461, -0.0000731]),
        (("x_cos_015_pi_x", "newton"), 10, [26.834]),
        (("x_cos_015_pi_x", "newton", "optim.lr=0.5"), 10, [7.270]),
    ],
)
def test_a_path_ends_where_the_notes_end(words, steps, end):
    assert walk(*words, steps=steps)[-1] == pytest.approx(end, abs=6e-4 if words[1] == "newton" else 6e-8)


def test_newtons_path_on_cosh_is_the_notes_and_its_order_is_at_least_1_9():
    points = walk("cosh", "newton", steps=7)[:, 0]
    assert points[1:] == pytest.approx([8.0002, 6.0015, 4.0114, 2.0825, 0.5258, 0.0118, 1.4e-7], abs=6e-5)
    errors = np.abs(points[-3:])
    assert np.log(errors[2] / errors[1]) / np.log(errors[1] / errors[0]) >= 1.9


@pytest.mark.parametrize(("name", "start"), [("himmelblau", "[3.3,2.2]"), ("beale", "[3.1,0.52]")])
def test_newtons_order_near_a_minimum_of_two_coordinates(name, start):
    errors = np.linalg.norm(walk(name, "newton", f"data.start={start}", steps=8) - landscape(name).minima[0], axis=1)
    small = [each for each in errors if 1e-13 < each < 0.05][-3:]
    assert math.log(small[-1] / small[-2]) / math.log(small[-2] / small[-3]) >= 1.9


@pytest.mark.parametrize(("dimension", "condition"), CONDITIONS)
def test_a_quadratic_takes_newton_one_step_and_conjugate_gradients_n(dimension, condition):
    words = quadratic(dimension, condition)
    shape = {"dimension": dimension, "condition": condition}
    for option, steps in (("newton", 1), ("conjugate_gradient", dimension)):
        norms = gradient_norms("quadratic", walk("quadratic", option, *words, steps=steps), **shape)
        assert norms[-1] <= 1e-5 * norms[0], option
        assert option == "newton" or dimension < 3 or norms[-2] > 1e-5 * norms[0], "not sooner"


@pytest.mark.parametrize("option", ["conjugate_gradient optim.step=strong_wolfe", "lbfgs", "line_search"])
def test_a_search_converges_on_a_quadratic(option):
    steps = 250 if option == "line_search" else 92
    points = walk("quadratic", *option.split(), *quadratic(10, 30.0), steps=steps)
    norms = gradient_norms("quadratic", points, dimension=10, condition=30.0)
    assert norms[-1] <= 1e-5 * norms[0]


@pytest.mark.parametrize("condition", [4.0, 25.0])
def test_gradient_descent_keeps_its_rate_and_diverges_above_2_over_l(condition):
    words, shape = quadratic(4, condition), {"dimension": 4, "condition": condition}
    for lr, bound in ((2 / (1 + condition), (condition - 1) / (condition + 1)), (1 / condition, 1 - 1 / condition)):
        distances = np.linalg.norm(walk("quadratic", "sgd", f"optim.lr={lr}", *words), axis=1)
        assert (distances[1:] <= bound * distances[:-1] * (1 + 1e-9)).all()
        assert distances[-1] >= 0.5 * bound**20 * distances[0], "the bound is tight"
    below, above = (
        gradient_norms("quadratic", walk("quadratic", "sgd", f"optim.lr={factor * 2 / condition}", *words), **shape)
        for factor in (0.99, 1.01)
    )
    assert below[-1] < below[0]
    assert above[-1] > above[-5] > above[-10]


def test_the_exact_line_search_is_no_slower_than_kantorovich():
    points = walk("quadratic", "line_search", *quadratic(2, 10.0))
    values = landscape("quadratic", condition=10.0).values(points, np)
    assert (values[1:] <= ((10 - 1) / (10 + 1)) ** 2 * values[:-1] * (1 + 1e-9)).all()


def test_saddles_hold_newton_and_absolute_eigenvalues_leave_them():
    assert np.abs(walk("saddle", "newton", steps=2)[-1]).max() < 1e-12
    escaped = walk("saddle", "newton", "optim.absolute_eigenvalues=true", steps=8)[-1]
    assert abs(escaped[0]) < 1e-12
    assert escaped[1] > 1
    damped = walk("parabola", "newton", "optim.damping=2.0", steps=1)[-1]
    assert damped == pytest.approx([10 - 20 / 4])


def test_the_diagonal_preconditioner_divides_by_the_diagonal():
    start = torch.tensor(landscape("quadratic").start, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda x: landscape("quadratic").values(x, torch), start)
    expected = start - hessian @ start / hessian.diag()
    assert walk("quadratic", "preconditioned", steps=1)[-1] == pytest.approx(expected.tolist())
    assert np.abs(walk("bowl", "preconditioned", steps=1)[-1]).max() < 1e-12


def test_a_direction_without_curvature_stays():
    assert walk("cubic", "newton", "data.start=[0.0]", steps=2)[-1] == [0.0]


# ---- noise and rates


def test_noise_is_a_function_of_seed_and_step_and_evaluations_are_without():
    noisy = ["bowl", "sgd", "optim.lr=0.1", "data.noise=0.5"]
    first = walk(*noisy, "seed=1")
    assert (first == walk(*noisy, "seed=1")).all()
    assert (first != walk(*noisy, "seed=2"))[1:].all()
    assert (first[:11] == walk(*noisy, "seed=1", steps=10)).all()
    slopes = (first[:-1] - first[1:]) / 0.1 - first[:-1] * [2, 4]
    longer = walk(*noisy, steps=400)
    drawn = (longer[:-1] - longer[1:]) / 0.1 - longer[:-1] * [2, 4]
    assert len(np.unique(slopes.round(9))) == slopes.size
    assert drawn.std() == pytest.approx(0.5, rel=0.1)
    assert abs(drawn.mean()) < 0.05
    served = build(compose(["data=function", "data.noise=0.5"]).config).batches["train"]
    whole, later = ([slope for _, slope in served.epoch(0, start)] for start in (0, 7))
    assert all(torch.equal(*pair) for pair in zip(whole[7:], later, strict=True)), "also where a run goes on"
    for row in recorded("optim=sgd", "data.noise=0.5")[1::2]:
        assert row["loss"] == pytest.approx(row["x1"] ** 2 + 2 * row["x2"] ** 2, rel=1e-12)


@pytest.mark.parametrize(
    ("schedule", "multiplier"),
    [
        (("piecewise", "schedule.boundaries=[10,20]", "schedule.values=[1,0.1,0.01]"), lambda t: 0.1 ** (t // 10)),
        (("exponential", "schedule.decay=0.1"), lambda t: math.exp(-0.1 * t)),
        (("polynomial", "schedule.b=0.1", "schedule.c=0.5"), lambda t: (1 + 0.1 * t) ** -0.5),
    ],
    ids=["piecewise", "exponential", "polynomial"],
)
def test_a_dynamic_rate_calms_the_noise_by_steps(schedule, multiplier: Callable[[int], float]):
    words = ("data.noise=1.0", "optim=sgd", "optim.lr=0.1", "data.steps=30", f"schedule={schedule[0]}", *schedule[1:])
    found = recorded(*words)
    assert [row["lr"] for row in found[::2]] == pytest.approx([0.1 * multiplier(t) for t in range(30)])
    points = np.array([[-5.0, -2.0], *([row["x1"], row["x2"]] for row in found[1::2])])
    drawn = (points[:-1] - points[1:]) / [[0.1 * multiplier(t)] for t in range(30)] - points[:-1] * [2, 4]
    constant = walk("bowl", "sgd", "optim.lr=0.1", "data.noise=1.0", steps=30)
    same = (constant[:-1] - constant[1:]) / 0.1 - constant[:-1] * [2, 4]
    np.testing.assert_allclose(drawn, same, atol=1e-9, err_msg="the same noise at any rate")


# ---- searches


def test_line_searches_meet_their_conditions():
    def trial(t: float) -> Trial:
        return Trial(t, math.cosh(t - 3) + 0.1 * math.sin(5 * t), math.sinh(t - 3) + 0.5 * math.cos(5 * t))

    start = trial(0.0)
    for first in (1e-3, 0.5, 2.9, 40.0):
        found = trial(strong_wolfe(trial, start.loss, start.slope, first=first))
        assert found.loss <= start.loss + 1e-4 * found.distance * start.slope
        assert abs(found.slope) <= -0.1 * start.slope
        near = armijo(lambda t: trial(t).loss, start.loss, start.slope, first=first)
        assert trial(near).loss <= start.loss + 1e-4 * near * start.slope
    assert armijo(lambda t: math.nan, 1.0, -1.0, first=1.0) == 0.0


# ---- runs


@pytest.mark.parametrize("function", ["x_cos_pi_x", "himmelblau", "quadratic"])
def test_a_run_records_the_whole_path_and_draws_it(function):
    words = ["data.dimension=12"] if function == "quadratic" else []
    folder = run("data=function", f"data.function={function}", "optim=newton", "data.steps=4", *words)
    found = [(row["step"], row["epoch"]) for row in rows(folder, "val")]
    assert found == [(step, step / 4) for step in range(5)]
    named = [name for name in rows(folder, "val")[0] if name.startswith("x")]
    assert named == [
        f"x{place}" for place in range(1, 1 + {"x_cos_pi_x": 1, "himmelblau": 2, "quadratic": 10}[function])
    ]
    start = landscape(function, dimension=12 if words else None).start
    assert [rows(folder, "val")[0][name] for name in named] == [*start[:10]]
    assert rows(folder)[-1]["split"] == "val"
    for name in ("path.png", "path.svg"):
        assert (folder / name).stat().st_size > 5_000
        (folder / name).unlink()
    assert [path.name for path in draw_path(folder)] == ["path.png", "path.svg"]
    assert summary(folder)["precision"] == "fp64"


def test_a_sweep_overlays_the_paths(monkeypatch):
    drawn: list[Any] = []
    original = sweep_picture.draw_walks
    monkeypatch.setattr(sweep_picture, "draw_walks", lambda *given: (drawn.append(given), original(*given)))
    folder = Path("outputs/runs")
    for number, option in enumerate(["sgd", "newton"]):
        run("data=function", "data.function=beale", f"optim={option}", name=f"job{number}")
    jobs = {
        option: [{"job": f"job{number}", "status": "completed", "settings": {"optim": option}, "val_loss": 1.0}]
        for number, option in enumerate(["sgd", "newton"])
    }
    assert [path.name for path in draw_sweep(jobs, folder, column="val_loss")] == ["sweep.png", "sweep.svg"]
    ((_, found, walks),) = drawn
    assert found.name == "beale"
    assert [(label, each[0].shape) for label, each in walks] == [
        ("1. optim=sgd", (21, 4)),
        ("2. optim=newton", (21, 4)),
    ]
    run("data=function", "data.function=bowl", "optim=sgd", name="job2")
    jobs["bowl"] = [{"job": "job2", "status": "completed", "settings": {"data.function": "bowl"}, "val_loss": 1.0}]
    draw_sweep(jobs, folder, column="val_loss")
    assert len(drawn) == 1, "paths on different landscapes are not laid over one another"


def test_a_run_of_a_search_goes_on_bit_for_bit():
    words = ["data=function", "data.function=rosenbrock", "optim=lbfgs", "data.steps=12", "data.noise=0.1"]
    whole = run(*words, "trainer.epochs=2", name="whole")
    run(*words, "trainer.epochs=1", name="cut")
    parted = run(*words, "trainer.epochs=2", name="cut")
    assert summary(parted)["weights_sha256"] == summary(whole)["weights_sha256"]
    assert summary(parted)["resumed"]


@pytest.mark.parametrize("option", sorted(SEARCHING - {"preconditioned"}))
def test_a_search_trains_a_network_in_parts_as_a_whole_and_counts_batch_norm_once(option):
    words = ["data=linear_synthetic", "data.num_train=64", "data.num_features=3", "data.val_size=0", "device=cpu"]
    words += ["model=mlp", "model.hidden_sizes=[4]", "model.activation=tanh", "data.batch_size=64", f"optim={option}"]
    words += ["optim.damping=0.1", "optim.absolute_eigenvalues=true"] if option in OF_POINTS else []

    def trained(*more: str) -> tuple[nn.Module, list[float]]:
        made = build(compose([*words, *more]).config)
        made.model.double()
        batch = [each.double() for each in next(made.batches["train"].epoch(0))]
        losses = []
        for step in range(6):
            made.engine.step(batch, step)
            losses.append(float(made.engine.last_loss))
        return made.model, losses

    model, losses = trained()
    assert losses[-1] < 0.9 * losses[0]
    parted, _ = trained("trainer.microbatch=16")
    for left, right in zip(model.parameters(), parted.parameters(), strict=True):
        assert (left - right).abs().max() < 1e-6
    normed, _ = trained("model.norm=batch", "model.dropout=0.3")
    assert {buffer.item() for name, buffer in normed.named_buffers() if "num_batches" in name} == {6}


ROUGH = {
    "curvature without end": lambda away: away.abs().pow(1.5).sum(),
    "no bottom": lambda away: -math.inf if away.any() else away.sum(),
}


@pytest.mark.parametrize(
    ("option", "words"),
    [("newton", "curvature without end"), ("preconditioned", "curvature without end"), ("lbfgs", "no bottom")],
)
def test_a_search_that_leads_to_no_number_is_taken_back(option, words):
    made = build(compose(["data=function", "data.function=rosenbrock", f"optim={option}"]).config)
    batch, position = next(made.batches["train"].epoch(0)), made.engine.parameters[0]
    made.engine.step(batch, 0)
    before = position.detach().clone()
    made.engine.penalty = lambda: ROUGH[words](position - before)
    made.engine.step(batch, 1)
    assert torch.equal(position, before)
    assert made.engine.report(epoch=False)["nonfinite_steps"] == 1
    assert not made.engine.optimizer.state
    made.engine.penalty = None
    made.engine.step(batch, 2)
    assert not torch.equal(position, before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.function=bowls"], "function=bowls: choose one of"),
        (["data.start=[1]"], "data.start=[1.0]: bowl needs 2 coordinates"),
        (["data.dimension=3"], "function=bowl has 2 coordinates"),
        (["data.function=quadratic", "data.condition=0.5"], "condition=0.5: must be 1 or more"),
        (["data.steps=0"], "data.steps=0: must be 1 or more"),
        (["data.noise=-1"], "data.noise=-1: must be 0 or more"),
        (["optim=newton", "trainer.clip_norm=1"], "trainer.clip_norm=1"),
        (["optim=lbfgs", "trainer.clip_value=1"], "trainer.clip_value=1"),
        (["device.precision=bf16"], "is computed in float64"),
        (["model=mlp"], "the model cannot train on a single input of a number"),
        (["optim=newton", "data=linear_synthetic", "model=mlp", "model.hidden_sizes=[999]"], "6,994 parameters"),
        (["data=linear_synthetic", "model=point"], "model=point needs start, which these data do not have"),
        (["data=linear_synthetic", "loss=objective"], "loss=objective needs function, which these data do not have"),
    ],
)
def test_what_does_not_fit_is_refused(words, message, capsys):
    chosen = [] if any(word.startswith("data=") for word in words) else ["data=function"]
    run(*chosen, *words, "device=cpu", expected=78)
    assert message in capsys.readouterr().err


def test_divergence_is_said(capsys):
    folder = run("data=function", "data.function=cubic", "optim=sgd", "optim.lr=3", expected=65)
    assert summary(folder)["status"] == "diverged"
    assert (folder / "path.png").is_file()


def test_inspect_tells_of_convexity(capsys):
    assert main(["inspect", "data=function", "data.function=bowl"]) == 0
    assert "bowl passes as convex" in capsys.readouterr().out
    assert main(["inspect", "data=function", "data.function=cubic"]) == 0
    assert "cubic is not convex" in capsys.readouterr().out
