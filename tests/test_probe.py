"""The probe of a step and of the making of a batch: what it counts and names, and that these do not notice."""

import inspect
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import pytest
import torch
from engines import batches, engine, equal, first_batch, network, poisoned
from helpers import CONF, SEARCHING, optimizers, options
from omegaconf import OmegaConf
from test_engine_graph import Tape
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy

from dltrain import optim
from dltrain.components import make
from dltrain.data import augment
from dltrain.data.preparation import KINDS, Pixels, restored
from dltrain.engine import Engine, GraphedEngine
from dltrain.engine.probe import Probe, Watch, operation_seconds
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


def test_to_queue_an_update_on_a_gpu_is_not_to_make_it() -> None:
    watch, weights = watch_of("cuda"), torch.ones(4, 2, 3, 3)
    assert weights.shape in watch.shapes
    with watch:
        weights.add_(1)
    assert (watch.operations, watch.update_seconds) == (1, 0.0)


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
    assert probe.waits[0] == last_line(waiting)


def last_line(function: Callable[..., Any]) -> str:
    lines, first = inspect.getsourcelines(function)
    return f"test_probe.py:{first + len(lines) - 1}"


@pytest.mark.parametrize("waiting", [reads_a_number, decides, counts, masks])
@pytest.mark.parametrize("where", ["augmentation", "preparation"])
def test_what_needs_a_result_in_the_making_of_a_batch_is_named_too(waiting, where: str) -> None:
    class Waiting(Pixels):
        def inputs(self, stored: Tensor) -> Tensor:
            return super().inputs(stored) + waiting(stored.float().mean())

    serving, probe = batches(), Probe(engine())
    if where == "augmentation":
        serving.augment = lambda images, labels, generator: (images + waiting(images.mean()), labels)
    else:
        serving.prepare = Waiting(8, torch.tensor(0.0), torch.tensor(1.0))
    assert len(list(probe.watched(serving).epoch(0))) == 5
    assert probe.making.waits == [last_line(waiting)]
    assert (probe.waits, probe.operations) == ([], 0)


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_the_second_batch_alone_is_watched_and_what_it_would_have_been(workers: int | None) -> None:
    probe, serving = Probe(engine()), batches(workers=workers)
    watched, seen = probe.watched(serving), []
    for epoch in (0, 1):
        for found, expected in zip(watched.epoch(epoch, 1), batches().epoch(epoch, 1), strict=True):
            assert all(map(torch.equal, found, expected))
            seen.append(probe.making.operations)
    serving.close()
    assert seen == [0, *[seen[1]] * 7]
    assert seen[1] > 10
    assert probe.making.waits == []


def test_where_there_is_no_second_batch_one_of_a_later_epoch_is_watched() -> None:
    probe = Probe(engine())
    watched = probe.watched(batches())
    assert len(list(watched.epoch(0, 4))) == 1
    assert probe.making.operations == 0
    assert len(list(watched.epoch(1, 3))) == 2
    assert probe.making.operations > 10


def test_a_batch_that_was_watched_is_not_kept() -> None:
    epoch = Probe(engine()).watched(batches()).epoch(0)
    next(epoch)
    second = weakref.ref(next(epoch)[0])
    assert second() is not None
    next(epoch)
    assert second() is None


def watch_of(device: str) -> Watch:
    watch = Watch(engine())
    watch.device = torch.device(device)
    return watch


def pretended(device: str) -> AbstractContextManager:
    """A GPU need not be there for tensors without numbers: what reads one raises an error, what is copied is seen."""
    return FakeTensorMode(allow_non_fake_inputs=True) if device == "cuda" else nullcontext()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("option", sorted({*options("augment")} - {"none"}))
def test_no_augmentation_waits(option: str, device: str) -> None:
    node = OmegaConf.create({"augment": OmegaConf.load(CONF / "augment" / f"{option}.yaml")}).augment
    augmentation, watch = make(augment, node, num_classes=3), watch_of(device)
    with pretended(device):
        images, labels = torch.ones(6, 2, 8, 8, device=device), torch.ones(6, dtype=torch.int64, device=device)
        for block in (nullcontext(), watch):
            with block:
                augmentation(images, labels, Generator())
    assert watch.operations > 1
    assert watch.waits == []


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_preparation_waits(kind: str, device: str) -> None:
    numbers = {name: [1.0, 2.0] for name in ("mean", "deviation", "target_mean", "target_deviation")}
    states = {"pixels": {"image_size": 5, "mean": [[[1.0]]], "deviation": [[[2.0]]]}, "features": numbers}
    preparation, watch = restored({"kind": kind, **states.get(kind, {})}), watch_of(device)
    with pretended(device):
        stored = torch.ones((6, 2, 8, 8) if kind == "pixels" else (6, 2), device=device)
        for block in (nullcontext(), watch):
            with block:
                preparation.outputs(preparation.inputs(stored))
                preparation.targets(stored)
    assert watch.waits == []


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
    packet = getattr(torch.ops.aten, name)
    function = getattr(packet, packet.overloads()[0])
    found = [each for each in arguments if isinstance(each, Tensor)]
    assert watch_of("meta")._waits(function, arguments, keywords, found, tensors.get(result, result)) is waits


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
