"""What goes through a network, forwards and backwards: its parameters, their gradients, the activations by layer."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves

from dltrain.models.batch_norm import ScratchBatchNorm

BINS = 60
MOST_NAMES = 6
STILL = 1e-6  # of the layer's largest value: a unit that varies less than that is dead
VANISHING, EXPLODING = 1e-3, 1e2  # times the gradient norm of the layer that runs last
DEAD = 0.05  # of a layer's units, from which on they are worth a word
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity)
CENTERING = (_NormBase, ScratchBatchNorm)  # norms that take away what is the same for a channel, as a bias is


class ParameterRow(NamedTuple):
    """A parameter; `gradient` is the norm of its gradient, None where it has none or none by nature.

    `depth` is the place among the weights in the order in which they run, None for vectors.
    """

    name: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    gradient: float | None
    note: str
    depth: int | None


class ActivationRow(NamedTuple):
    """The outputs of a layer over a batch: share of zeros, a histogram of the rest, and dead units of all units.

    `dead` is None for layers in which nothing dies: torch's own that are no activations.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    zeros: float
    edges: list[float]
    counts: list[float]
    units: int
    dead: int | None


class Inspection(NamedTuple):
    """The loss of a batch, and what its way through a network shows."""

    loss: float
    parameters: list[ParameterRow]
    activations: list[ActivationRow]


def inspect(model: nn.Module, inputs: Tensor, loss: Callable[[Tensor], Tensor]) -> Inspection:
    """One forward and one backward pass in training mode, of which `loss` is made of the outputs.

    Nothing is updated but the running statistics of norms.
    """
    watch = _Watch(model)
    model.zero_grad(set_to_none=True)
    with watch:
        value = loss(model.train().forward(inputs))  # not a compiled one, which runs no hooks
        value.backward()
    rows = [watch.parameter(name, parameter) for name, parameter in model.named_parameters()]
    return Inspection(value.item(), rows, watch.rows)


class _Watch(ExitStack):
    """Hooks on every layer and block, which write down what they make."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.rows: list[ActivationRow] = []
        self.calls: dict[str, int] = {}
        self.makers: dict[int, tuple[Tensor, nn.Module]] = {}
        self.before_norm: set[int] = set()
        self.order: dict[int, int] = {}
        for name, module in model.named_modules():
            if isinstance(module, CENTERING):
                self._keep(module.register_forward_pre_hook(self._find_bias))
            if module is not model and type(module) not in CONTAINERS:
                self._keep(module.register_forward_hook(partial(self._write, name)))

    def _keep(self, handle: Any) -> None:
        self.callback(handle.remove)

    def _find_bias(self, module: nn.Module, inputs: Any) -> None:
        _, maker = self.makers.get(id(inputs[0]), (None, None))
        bias = getattr(maker, "bias", None)
        if isinstance(bias, Tensor):
            self.before_norm.add(id(bias))

    def _write(self, name: str, module: nn.Module, _: Any, outputs: Any) -> None:
        output = next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))
        self.makers[id(output)] = output, module  # held, so that no other tensor gets its id
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1:
                self.order.setdefault(id(parameter), len(self.order))
        self.calls[name] = self.calls.get(name, 0) + 1
        again = f" ({self.calls[name]})" if self.calls[name] > 1 else ""
        self.rows.append(_activation(name + again, module, output.detach().float()))

    def parameter(self, name: str, parameter: nn.Parameter) -> ParameterRow:
        values, gradient = parameter.detach().float(), parameter.grad
        norm = None if gradient is None else gradient.float().norm().item()
        if not parameter.requires_grad:
            note = "frozen"
        elif id(parameter) in self.before_norm:
            norm, note = None, "none: before a norm"
        else:
            note = ""
        deviation = values.std(correction=0).item()
        depth = self.order.get(id(parameter))
        return ParameterRow(name, tuple(parameter.shape), values.mean().item(), deviation, norm, note, depth)


def _activation(name: str, module: nn.Module, output: Tensor) -> ActivationRow:
    finite = output[torch.isfinite(output)]
    others = finite[finite != 0].cpu()
    counts, edges = torch.histogram(others, BINS) if len(others) else (torch.zeros(BINS), torch.zeros(BINS + 1))
    units, dead = _dead(output)
    return ActivationRow(
        name,
        type(module).__name__,
        tuple(output.shape[1:]),
        output.mean().item(),
        output.std(correction=0).item(),
        1 - len(others) / output.numel(),
        edges.tolist(),
        (counts / output.numel()).tolist(),
        units,
        dead if _can_die(module) else None,
    )


def _can_die(module: nn.Module) -> bool:
    where = type(module).__module__
    return where == "torch.nn.modules.activation" or not where.startswith("torch.nn.")


def _dead(output: Tensor) -> tuple[int, int]:
    """Units, which are features of vectors and channels of images, and those that are the same for every input."""
    if output.ndim < 2:
        return 1, 0
    by_unit = output.movedim(-1 if output.ndim == 3 else 1, 0).flatten(1)
    spread = by_unit.amax(1) - by_unit.amin(1)
    return len(by_unit), int((spread <= STILL * output.abs().max()).sum())


def warnings(inspection: Inspection) -> list[str]:
    """Where gradients vanish or explode beside the last layer's, where there are none, and where units are dead."""
    told = [row for row in inspection.parameters if not row.note]
    low, high = limits(inspection) or (0.0, math.inf)
    nothing = [row.name for row in told if not row.gradient]
    infinite = [row.name for row in told if row.gradient is not None and not math.isfinite(row.gradient)]
    deep = {row.name: row.gradient for row in told if row.depth is not None and row.gradient}
    small = [f"{name} {norm:.1g}" for name, norm in deep.items() if norm < low]
    large = [f"{name} {norm:.1g}" for name, norm in deep.items() if high < norm < math.inf]
    dead = [
        f"{row.name} {row.dead} of {row.units}" for row in inspection.activations if (row.dead or 0) >= DEAD * row.units
    ]
    kinds = {
        "no gradient": nothing,
        "a gradient that is not finite": infinite,
        f"gradients vanish, norms below {VANISHING:g} of the last layer's, {low:.1g}": small,
        f"gradients explode, norms above {EXPLODING:g} times the last layer's, {high:.1g}": large,
        f"dead units, {DEAD:.0%} of a layer or more": dead,
    }
    return [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def limits(inspection: Inspection) -> tuple[float, float] | None:
    """The gradient norms below which one vanishes, and above which it explodes; None where there are no gradients.

    They are in units of the last layer's, weight and bias together: the bias's is that of the outputs, so that it tells
    too where small activations make every weight's gradient small.
    """
    gradients = {row.name: row.gradient for row in inspection.parameters if row.gradient}
    deep = [(row.depth, row.name) for row in inspection.parameters if row.depth is not None and row.gradient]
    if not deep:
        return None
    layer, _, _ = max(deep)[1].rpartition(".")
    last = math.hypot(*(norm for name, norm in gradients.items() if name.rpartition(".")[0] == layer))
    return VANISHING * last, EXPLODING * last


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
