"""The probe of one step: what it counts and names, and that the step does not notice."""

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from engines import batches, engine, equal, first_batch, network, poisoned
from helpers import SEARCHING, optimizers
from test_engine_graph import Tape
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dltrain import optim
from dltrain.engine import Engine, GraphedEngine
from dltrain.engine.probe import Probe, operation_seconds
from dltrain.train import fit

SETTINGS = {"ema": 0.9, "clip_norm": 1.0, "clip_value": 0.1}


def probed(ours: Engine, *, steps: int = 3) -> Probe:
    probe = Probe(ours)
    for step in range(steps):
        ours.step(first_batch(), step)
    return probe


@pytest.mark.parametrize("option", optimizers())
def test_the_steps_are_bit_for_bit_what_they_would_have_been_and_none_waits(option: str) -> None:
    watched, plain = engine(option, **SETTINGS), engine(option, **SETTINGS)
    probe = Probe(watched)
    found, expected = (
        [event.row and event.row["loss"] for event in fit(ours, batches(), epochs=2, log_every=1)]
        for ours in (watched, plain)
    )
    assert found == expected
    assert equal(watched.model.state_dict(), plain.model.state_dict())
    assert equal(watched.evaluated.state_dict(), plain.evaluated.state_dict())
    assert equal(watched.optimizer.state_dict(), plain.optimizer.state_dict())
    assert probe.operations > 50
    assert (probe.waits == []) == (option not in SEARCHING)


def test_one_step_is_watched_the_first_after_an_update() -> None:
    ours = engine()
    probe = Probe(ours)
    assert "step" in vars(ours)
    ours.step(poisoned(), 0)
    ours.step(first_batch(), 1)
    assert (ours.updated, probe.operations) == (True, 0)
    ours.step(first_batch(), 2)
    operations = probe.operations
    assert operations > 50
    assert "step" not in vars(ours)
    ours.step(first_batch(), 3)
    assert probe.operations == operations


def test_operations_are_those_of_forward_backward_and_update() -> None:
    plain = probed(engine("sgd")).operations
    longer = network()
    longer.insert(3, nn.Tanh())  # an operation forward, one backward, and some views between them
    assert plain + 2 <= probed(engine("sgd", longer)).operations <= plain + 6
    assert probed(engine("sgd", microbatch=5)).operations > 1.5 * plain


def test_the_update_of_large_weights_takes_time() -> None:
    small, large = (nn.Sequential(nn.Flatten(), nn.Linear(128, width), nn.Linear(width, 3)) for width in (4, 40_000))
    assert probed(engine("adam", large)).update_seconds > 2 * probed(engine("adam", small)).update_seconds > 0


def reads_a_number(loss: Tensor) -> Tensor:
    return loss if loss.item() < 1e9 else 2 * loss


def decides(loss: Tensor) -> Tensor:
    return loss if loss < 1e9 else 2 * loss


def counts(loss: Tensor) -> Tensor:
    return loss + 0.0 * len(loss.reshape(1).nonzero())


def masks(loss: Tensor) -> Tensor:
    values = loss.repeat(3)
    return values[values > 0].mean()


@pytest.mark.parametrize("waiting", [reads_a_number, decides, counts, masks])
def test_what_needs_a_result_on_the_host_is_named_with_its_place(waiting: Callable[[Tensor], Tensor]) -> None:
    probe = probed(engine(loss=lambda logits, targets: waiting(cross_entropy(logits, targets))))
    lines, first = inspect.getsourcelines(waiting)
    assert probe.waits[0] == f"test_probe.py:{first + len(lines) - 1}"


def test_what_waits_in_the_backward_pass_is_named_too() -> None:
    class Waiting(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            return values.clone()

        @staticmethod
        def backward(context, gradient):
            assert gradient.isfinite().all()
            return gradient

    model = network()
    probe = probed(engine(model=model, loss=lambda logits, targets: cross_entropy(Waiting.apply(logits), targets)))
    assert [place.partition(":")[0] for place in probe.waits] == ["test_probe.py"]


@pytest.mark.parametrize(
    ("name", "arguments", "keywords", "result", "waits"),
    [
        ("_local_scalar_dense", ["gpu"], {}, 1.0, True),
        ("_local_scalar_dense", ["cpu"], {}, 1.0, False),
        ("_to_copy", ["gpu"], {"device": "cpu"}, "cpu", True),
        ("_to_copy", ["cpu"], {}, "gpu", True),
        ("_to_copy", ["cpu"], {"non_blocking": True}, "gpu", False),
        ("_to_copy", ["gpu"], {"dtype": torch.float64}, "gpu", False),
        ("copy_", ["gpu", "cpu"], {}, "gpu", True),
        ("copy_", ["gpu", "cpu", True], {}, "gpu", False),
        ("add", ["gpu", "cpu"], {}, "gpu", False),
    ],
)
def test_on_another_device_what_crosses_over_waits(name, arguments, keywords, result, waits) -> None:
    """The meta device stands for a GPU."""
    tensors = {"gpu": torch.ones(2, device="meta"), "cpu": torch.ones(2)}
    arguments = [tensors.get(each, each) if isinstance(each, str) else each for each in arguments]
    probe = Probe(engine())
    probe.device = torch.device("meta")
    packet = getattr(torch.ops.aten, name)
    function = getattr(packet, packet.overloads()[0])
    found = [each for each in arguments if isinstance(each, Tensor)]
    assert probe._waits(function, arguments, keywords, found, tensors.get(result, result)) is waits


def test_an_operation_costs_microseconds() -> None:
    assert 1e-7 < operation_seconds(engine(), vars(optim)["SGD"]) < 1e-3


class Taped(GraphedEngine):
    """A graphed engine that records on a tape."""

    tapes: ClassVar[list[Tape]] = []

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.tapes.append(Tape())
        super().__init__(*arguments, recorder=self.tapes[-1], **keywords)


def test_the_cost_of_an_operation_is_taken_on_the_same_kind_of_engine() -> None:
    graphed = engine(kind=Taped)
    operation_seconds(graphed, vars(optim)["SGD"])
    assert [tape.recorded for tape in Taped.tapes] == [0, 1]
    graphed.execution = "eager, because the step could not be recorded: refused"
    operation_seconds(graphed, vars(optim)["SGD"])
    assert len(Taped.tapes) == 2
