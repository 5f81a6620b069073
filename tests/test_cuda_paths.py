"""What can be known of CUDA without a GPU: on tensors of no content, whatever would wait for the device is an error.

Forward passes, losses, metrics, optimizers, evaluations and batches run as they would; backward passes, which are
torch's, do not. An operation of a step that meets a tensor of the CPU is an error, too: no CUDA graph could hold it.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
import torch._subclasses.fake_tensor as fake
import torch.utils._foreach_utils as foreach
from engines import CLASSES, engine, network
from helpers import CONF, DEEPEST, SEARCHING, networks, optimizers, options
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dltrain import build as building
from dltrain.build.supply import Supply
from dltrain.components import make
from dltrain.config import schema
from dltrain.config.compose import compose
from dltrain.data import augment
from dltrain.data import batches as serving
from dltrain.data.batches import Batches
from dltrain.data.facts import TextFacts
from dltrain.data.preparation import Pixels
from dltrain.engine import Engine, GraphedEngine, Precision, Strategy, why_eager
from dltrain.engine import graph as graphs
from dltrain.engine import step as steps

CUDA = torch.device("cuda")
Batch = tuple[Tensor, Tensor]
SLOW = {*DEEPEST, "densenet", "densenet121", "densenet169", "resnet34", "resnet50"}  # of layers that others have, too
UNKNOWN = {"gru"}  # to torch 2.11 where tensors have no content
PIXELS = {"image_size": 12, "mean": torch.full((2, 1, 1), 128.0), "deviation": torch.full((2, 1, 1), 64.0)}
QUICK = sorted({*networks()} - SLOW - UNKNOWN)
SIZES = ("data.num_train=64", "data.num_test=16", "data.val_size=16", "data.image_size=32", "data.batch_size=8")
OTHERS = [
    ("model=lenet", "model.norm=scratch", "loss=mse"),
    ("model=lenet", "model.norm=scratch_notes", "loss.label_smoothing=0.1"),
    ("model=mlp", "model.dropout=0.5", "model.dropout_form=notes", "loss.l2=0.1"),
    ("data=markov_text", "model=lstm", "model.dropout=0.5"),
    ("data=markov_text", "model=rnn", "model.embedding=8"),
    ("data=markov_text", "model=ngram", "model.order=3"),
    ("data=function", "data.noise=0.1", "optim=adam"),
    ("data=linear_synthetic", "optim=adam"),
]
TOKENS = torch.int64
pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")


class Device(TorchDispatchMode):
    """Where it is `watched`, nothing waits for the device; in a `step` no tensor is elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = self.step = False
        self.fused: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if fused := name.startswith("_fused_"):
            self.fused.add(name)
        result = None if fused else func(*args, **kwargs)  # they cannot do without content
        devices = {each.device.type for each in (*given, *tree_leaves(result)) if isinstance(each, Tensor)}
        assert devices <= {"cuda"} or not (self.step or fused), f"{func} meets tensors of {sorted(devices)}"
        if self.watched and name in ("copy_", "_to_copy") and len(devices) > 1:
            assert kwargs.get("non_blocking") or True in args[2:], f"{func} waits"
        return result


class Tape:
    """In place of what records CUDA graphs."""

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        return lambda: None


@pytest.fixture(autouse=True)
def _believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have torch and us believe in the device where we ask for it."""
    for module in (steps, graphs):
        monkeypatch.setattr(module, "default_generator", lambda device: torch.Generator())
    monkeypatch.setattr(serving, "Generator", lambda *_: torch.Generator())
    monkeypatch.setattr(graphs, "CudaRecorder", Tape)
    monkeypatch.setattr(GraphedEngine, "warm_ups", 1)
    monkeypatch.setattr(Strategy, "copied", lambda self, model: moved(model).requires_grad_(False))
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for module in (foreach, import_module("torch.optim.optimizer")):  # the attribute of torch.optim is a class
        monkeypatch.setattr(module, "_foreach_supported_types", [*module._foreach_supported_types, fake.FakeTensor])


@contextmanager
def pretended() -> Iterator[Device]:
    """A CUDA device whose tensors have no content."""
    with fake.FakeTensorMode(allow_non_fake_inputs=True), Device() as device:
        yield device


def moved(model: nn.Module) -> nn.Module:
    """The model on the device."""

    def there(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)

    memory: dict[int, Any] = {id(buffer): there(buffer) for buffer in model.buffers()}
    for parameter in model.parameters():
        memory[id(parameter)] = nn.Parameter(there(parameter), requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memory)


def train(ours: Engine, batch: Batch, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps, of which the last two are recorded where that can be, and an evaluation."""

    def backward(loss: Tensor) -> None:
        for parameter in ours.parameters:
            parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad + 1

    monkeypatch.setattr(Tensor, "backward", backward)
    ours.updated = True  # the first update waits
    device.watched = device.step = True
    for number in range(3):
        ours.step(batch, number)
    with ours.evaluating() as totals:
        ours.score(batch, totals)
        with pytest.raises(fake.DataDependentOutputException):
            totals.read()


def batch_of(*shape: int) -> Batch:
    return torch.empty(shape, device=CUDA), torch.zeros(shape[0], dtype=torch.int64, device=CUDA)


def inputs_of(supply: Supply) -> Batch:
    """Blank inputs and targets of eight examples there, or of as few as there may be."""
    served, text = supply.served, isinstance(supply.facts, TextFacts)
    inputs = torch.zeros(min(8, supply.batch_size), *served.input_shape, dtype=TOKENS if text else served.dtype)
    shape = served.input_shape if text else () if supply.facts.num_classes else served.output_shape
    targets = torch.zeros(len(inputs), *shape, dtype=TOKENS if supply.facts.num_classes else served.dtype)
    return inputs.to(CUDA), targets.to(CUDA)


@pytest.mark.parametrize("words", [*((f"model={each}",) for each in QUICK), *OTHERS], ids=" ".join)
def test_a_step_of_a_network_touches_the_device_alone(words: tuple[str, ...], monkeypatch) -> None:
    data = () if words[0].startswith("data=") else ("data=synthetic", *SIZES)
    config = compose([*data, "device=cpu", "trainer.ema=0.9", *words]).config
    trainer = schema.Trainer(**config.trainer)
    supply = Supply(config, trainer)
    made, schedule = building.make_model(config, supply.served), building.make(building.schedules, config.schedule)
    cudnn = torch.backends.cudnn.flags(enabled=False)  # or else recurrent layers would ask the driver
    with cudnn, pretended() as device:
        how = Precision("fp64" if supply.served.dtype == torch.float64 else "bf16", CUDA), supply, Strategy()
        ours = building._engine(config, trainer, moved(made), schedule, *how)
        train(ours, inputs_of(supply), device, monkeypatch)
        assert (ours.execution, device.fused) == ("CUDA graph", {"_fused_adam_"})


@pytest.mark.parametrize("option", sorted({*optimizers()} - SEARCHING))
def test_a_step_of_an_optimizer_touches_the_device_alone(option: str, monkeypatch) -> None:
    settings: dict[str, Any] = {"ema": 0.9, "clip_norm": 1.0, "clip_value": 0.1, "l2": 0.1, "microbatch": 4}
    with pretended() as device:
        ours = engine(option, moved(network()), kind=GraphedEngine, precision="fp16", **settings)
        if why_eager(ours.optimizer):
            pytest.skip("this torch has its step, or its counters, on the host")
        train(ours, batch_of(10, 2, 8, 8), device, monkeypatch)
        assert ours.execution == "CUDA graph"


@pytest.mark.parametrize("option", options("augment"))
def test_batches_are_made_on_the_device(option: str) -> None:
    node = OmegaConf.load(CONF / "augment" / f"{option}.yaml")
    changed = make(augment, node, num_classes=CLASSES)
    with pretended() as device:
        images = torch.empty(45, 2, 8, 8, dtype=torch.uint8, device=CUDA)
        labels = torch.zeros(45, dtype=torch.int64, device=CUDA)
        how: dict[str, Any] = {"batch_size": 10, "shuffle": True, "augment": changed, "device": CUDA}
        ours = Batches(images, labels, prepare=Pixels(**PIXELS), **how)
        served = [*ours.epoch(0)]  # in which matrices and the like go there
        device.watched = True
        served += ours.epoch(1)
        assert [len(batch[0]) for batch in served] == [10, 10, 10, 10, 5] * 2
        assert {part.device.type for batch in served for part in batch} == {"cuda"}
        assert {batch[0].shape[1:] for batch in served} == {(2, 12, 12)}


def reading(logits: Tensor, targets: Tensor) -> Tensor:
    loss = cross_entropy(logits, targets)
    return loss if loss.item() > 0 else -loss


def elsewhere(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits, targets, weight=torch.ones(CLASSES).to(logits.device))


@pytest.mark.parametrize(("loss", "error"), [(reading, fake.DataDependentOutputException), (elsewhere, AssertionError)])
def test_what_waits_or_is_elsewhere_is_found(loss: Any, error: type[Exception], monkeypatch) -> None:
    with pretended() as device, pytest.raises(error):
        train(engine("sgd", moved(network()), loss=loss), batch_of(10, 2, 8, 8), device, monkeypatch)
