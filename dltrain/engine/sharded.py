"""Weights, gradients and optimizer's state divided over ranks: torch's fully_shard, and steps on a rank's own rows."""

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from dltrain.engine.guard import all_finite
from dltrain.engine.optimizer import load_state
from dltrain.engine.ranks import Ranks
from dltrain.engine.strategy import Make, Penalty, Strategy, alike, nothing

LARGE, LITTLE = 4, 100  # of a model's parameters, a fourth and a hundredth
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Shards(nn.Module):
    """The rows of each parameter that this rank holds, by name: plain tensors, in the memory that torch shards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.whole: dict[str, Any] = dict(model.named_parameters())
        self.own = {
            name: nn.Parameter(whole.detach().to_local(), requires_grad=whole.requires_grad)
            for name, whole in self.whole.items()
        }

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.own.items()


class ShardedModel(Strategy):
    """Each rank holds its rows of every parameter, of its gradient and of the optimizer's state.

    A block's parameters are gathered before it runs, forwards and backwards, and let go after it; its gradient is
    averaged and divided as soon as it is there. The optimizer steps the rows as plain tensors.
    Source: torch.distributed.fsdp.fully_shard.
    """

    name, is_whole = "fsdp2", False

    def __init__(self, ranks: Ranks | None = None) -> None:
        super().__init__(ranks)
        self.shards: dict[nn.Module, Shards] = {}

    def divide(self, model: nn.Module) -> nn.Module:
        """As every strategy; raises ValueError where a parameter has no rows."""
        if single := [name for name, parameter in model.named_parameters() if not parameter.dim()]:
            raise ValueError(f"{single[0]} is a single number, which has no rows to divide")
        self.plan = _plan(model)
        self.trained = self._divide(model)
        return self.plan

    def _divide(self, model: nn.Module) -> Shards:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nothing changes in place
        device = next(model.parameters()).device
        self.mesh = init_device_mesh(device.type, (self.ranks.size,))
        model.to(memory_format=torch.contiguous_format)  # the only one that can be divided
        for block in [*blocks(model), model]:  # the model, too, lets go: an evaluation would leave its weights behind
            fully_shard(block, mesh=self.mesh, reshard_after_forward=True)
        self.shards[model] = Shards(model)
        return self.shards[model]

    def held(self, model: nn.Module) -> nn.Module:
        return self.shards[model]

    def copied(self, model: nn.Module) -> nn.Module:
        device = next(self.held(model).parameters()).device
        twin = copy.deepcopy(self.plan).to_empty(device=device).eval().requires_grad_(False)
        self._divide(twin)
        with torch.no_grad():
            for new, old in zip(_tensors(self.held(twin)), _tensors(self.held(model)), strict=True):
                new.copy_(old)
        return twin

    def suits(self, groups: Sequence[Mapping[str, Any]], make: Make) -> bool:
        """Whether the step of a row does not depend on others."""
        return all(alike(make, group, several=False) for group in groups)

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def unshared(self, wrapped: Any, *, when: bool) -> AbstractContextManager[None]:
        return _unsynchronized(wrapped) if when else nullcontext()

    def gradients(self, parameters: Sequence[Tensor], *, weight: float) -> list[Tensor]:
        """What is there already is the penalty's, on this rank's rows alone: no mean over ranks, and no weight."""
        for name, own in self.trained.own.items():
            whole = self.trained.whole[name]
            if whole.grad is not None:
                rows = whole.grad.to_local()
                own.grad = rows if own.grad is None else rows + own.grad / weight
                whole.grad = None
        return super().gradients(parameters, weight=weight)

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        return self.ranks.total(get_total_norm(gradients).square()).sqrt()

    def finite(self, gradients: Sequence[Tensor]) -> Tensor:
        return self.ranks.total((~all_finite(gradients)).float()) == 0

    def agree(self, holds: bool) -> bool:
        return self.ranks.highest([int(not holds)]) == [0]

    def summed(self, penalty: Penalty) -> Penalty:
        """The sum over ranks, of which each computes the gradient of its rows."""
        if penalty is None:
            return None

        def whole() -> Tensor:
            own = penalty()
            return own + (self.ranks.total(own.detach()) - own.detach())

        return whole

    def scoring(self) -> AbstractContextManager[Any]:
        """Without inference mode, whose tensors the gathered parameters would remain."""
        return torch.no_grad()

    def weights(self, model: nn.Module) -> Mapping[str, Any]:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def load_weights(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        given: dict[str, Any] = dict(weights) if self.ranks.leads else {}
        set_model_state_dict(model, given, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Gathered tensor by tensor, kept by the first rank alone."""
        state = optimizer.state_dict()
        gathered = self._mapped(state, self._gathered)
        return {**state, "state": gathered} if self.ranks.leads else nothing()

    def load_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        load_state(optimizer, {**state, "state": self._mapped(state, self._rows)})

    def _mapped(self, state: Mapping[str, Any], change: Callable[[Any, str], Any]) -> dict[int, dict[str, Any]]:
        """An optimizer's state, of which each value was changed, knowing the name of its parameter."""
        names = [name for group in state["param_groups"] for name in group["param_names"]]
        return {
            index: {key: change(value, names[index]) for key, value in values.items()}
            for index, values in state["state"].items()
        }

    def _gathered(self, value: Any, name: str) -> Any:
        """The whole of which each rank has rows; None on all but the first rank."""
        from torch.distributed.tensor import DTensor

        whole, rows = self.trained.whole[name], self.trained.own[name]
        if not isinstance(value, Tensor) or not value.dim() or value.shape != rows.shape:
            return value
        form = {"shape": whole.shape, "stride": whole.stride()}
        every = DTensor.from_local(value, self.mesh, whole.placements, run_check=False, **form).full_tensor()
        return every.cpu() if self.ranks.leads else None

    def _rows(self, value: Any, name: str) -> Any:
        """Of a whole that every rank has, those of this one."""
        from torch.distributed.tensor import distribute_tensor

        whole = self.trained.whole[name]
        if not isinstance(value, Tensor) or not value.dim() or value.shape != whole.shape:
            return value
        return distribute_tensor(value, self.mesh, whole.placements, src_data_rank=None).to_local()


def blocks(model: nn.Module) -> list[nn.Module]:
    """The modules that are gathered one at a time; the parameters of none of them are always the model's own.

    They are the children that have a hundredth of all parameters or more, and share none with others. In place of a
    container, and of one that has a fourth or more, are its children; never those of torch's own layers, which use
    their children's parameters without running them.
    """
    total, uses = _size(model), _uses(model)

    def within(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            if isinstance(child, CONTAINERS) or (_size(child) * LARGE >= total and _runs_children(child)):
                yield from within(child)
            elif _size(child) * LITTLE >= total and _uses(child).items() <= uses.items():
                yield child

    return list(dict.fromkeys(within(model)))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """How many layers have each parameter."""
    return Counter(parameter for layer in module.modules() for parameter in layer.parameters(recurse=False))


def _runs_children(module: nn.Module) -> bool:
    return bool([*module.children()]) and not type(module).__module__.startswith("torch.nn.")


def _plan(model: nn.Module) -> nn.Module:
    """A copy without numbers, on the meta device."""
    meta: dict[int, Any] = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        meta[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, meta)


def _tensors(held: nn.Module) -> list[Tensor]:
    return [*held.parameters(), *held.buffers()]


@contextmanager
def _unsynchronized(model: Any) -> Iterator[None]:
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)
