"""Where a run that goes on is not given back one thing that it had, its outcome differs: the comparison notices."""

from pathlib import Path

import pytest
import torch
from faults import RUN, outcome

from dltrain.cli import main
from dltrain.data.batches import Batches
from dltrain.engine import Engine, Precision
from dltrain.engine.totals import Totals
from dltrain.schedules import Plateau
from dltrain.train import Monitor

FOLDER = Path("outputs/runs/run")


class Stop(Exception):  # noqa: N818
    """Ends a run as abruptly as a kill."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reference"))
        assert main([*RUN, "name=run"]) == 0
        return outcome(FOLDER.resolve())


def interrupted(monkeypatch, *, after: int) -> None:
    """A run that stops after so many steps."""
    take = Engine.step

    def step(engine, batch, number):
        if number == after:
            raise Stop
        take(engine, batch, number)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", step)
        assert main([*RUN, "name=run"]) == 1


def forgetful(function):
    """The function, of which nothing is kept."""

    def forget(*arguments, **keywords):
        return None

    return forget


def without_buffers(engine, state):
    own = engine.model.state_dict()
    model = {name: own[name] if "running" in name else value for name, value in state["model"].items()}
    LOAD(engine, {**state, "model": model})


def without_average(engine, state):
    LOAD(engine, {**state, "ema": None})


def without_optimizer(engine, state):
    LOAD(engine, {**state, "optim": {"param_groups": [{"params": [], "param_names": []}], "state": {}}})


def from_the_beginning(batches, epoch, start=0):
    return EPOCH(batches, epoch)


def unseeded(engine, work, step):
    engine.generator = torch.Generator()  # the one that dropout draws from goes on from wherever it is
    return ATTEMPT(engine, work, step)


SET_UP = Precision.__init__
LOAD, EPOCH, ATTEMPT = Engine.load_state_dict, Batches.epoch, Engine._attempt
BROKEN = {
    "optimizer": (Engine, "load_state_dict", without_optimizer),
    "batch norm": (Engine, "load_state_dict", without_buffers),
    "average": (Engine, "load_state_dict", without_average),
    "sampler": (Batches, "epoch", from_the_beginning),
    "random numbers": (Engine, "_attempt", unseeded),
    "schedule": (Plateau, "load_state_dict", forgetful(Plateau.load_state_dict)),
    "best": (Monitor, "load_state_dict", forgetful(Monitor.load_state_dict)),
    "sums": (Totals, "load_state_dict", forgetful(Totals.load_state_dict)),
}


def test_what_goes_on_untouched_is_the_same(reference, monkeypatch):
    interrupted(monkeypatch, after=7)
    assert main(["resume", "run"]) == 0
    assert outcome(FOLDER.resolve()) == reference


@pytest.mark.parametrize("item", BROKEN)
def test_what_goes_on_without_one_thing_is_not_the_same(item, reference, monkeypatch):
    interrupted(monkeypatch, after=13)  # the checkpoint is in the middle of the last epoch
    owner, name, broken = BROKEN[item]
    monkeypatch.setattr(owner, name, broken)
    assert main(["resume", "run"]) == 0
    assert outcome(FOLDER.resolve()) != reference


def scaled(precision, name, device):
    """Scales losses as float16 needs it, doubling every two steps."""
    SET_UP(precision, name, device, interval=2)
    precision.scaled, precision.scale = True, torch.tensor(2.0**16)


@pytest.mark.parametrize("broken", [False, True])
def test_the_scale_of_float16_is_given_back(broken, monkeypatch):
    monkeypatch.setattr(Precision, "__init__", scaled)
    assert main([*RUN, "name=whole"]) == 0
    interrupted(monkeypatch, after=13)
    if broken:
        monkeypatch.setattr(Precision, "load_state_dict", forgetful(Precision.load_state_dict))
    assert main(["resume", "run"]) == 0
    same = outcome(FOLDER.resolve()) == outcome(FOLDER.resolve().with_name("whole"))
    assert same is not broken
