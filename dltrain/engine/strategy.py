"""What of a model and of its optimizer each rank holds, and how ranks come to the same step."""

import copy
import warnings
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

Make = Callable[[list[dict[str, Any]]], Optimizer]  # an optimizer of parameter groups
Penalty = Callable[[], Tensor] | None


class Strategy:
    """Every rank holds all, and DistributedDataParallel averages gradients; alone, which costs nothing, no one does.

    An engine asks it for whatever differs where a rank holds a part. What the first rank saves is whole; of the others
    who come to it some have nothing.
    """

    name, is_whole = "ddp", True  # whether every rank has all weights

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()

    def divide(self, model: nn.Module) -> nn.Module:
        """Leave to each rank its part of a model on its device; returns one that shows the layers of the whole."""
        return model

    def held(self, model: nn.Module) -> nn.Module:
        """What has, under the model's names, the parameters that this rank holds and steps."""
        return model

    def copied(self, model: nn.Module) -> nn.Module:
        """A copy that is held as the model is, and not trained."""
        return copy.deepcopy(model).eval().requires_grad_(False)

    def suits(self, groups: Sequence[Mapping[str, Any]], make: Make) -> bool:
        """Whether an optimizer that each rank makes of its part steps as one of the whole would."""
        return True

    def share(self, optimizer: Optimizer, make: Make) -> Optimizer:
        """The optimizer of all that `held` has, in place of one that keeps the whole state; `make` makes its like."""
        return optimizer

    def own(self, optimizer: Optimizer) -> Optimizer:
        """The one that keeps this rank's state."""
        return optimizer

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, whose backward passes average gradients over ranks, a bucket as soon as it is ready."""
        if self.ranks.size == 1:
            return model
        self.ranks.meet()
        warnings.filterwarnings("ignore", "Grad strides do not match")  # 1x1 kernels, whose strides say nothing
        with warnings.catch_warnings():  # of a name that newer versions of torch have changed
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def unshared(self, wrapped: nn.Module, *, when: bool) -> AbstractContextManager[None]:
        """Where gradients are summed up on this rank alone, until a later backward pass averages them."""
        if isinstance(wrapped, nn.parallel.DistributedDataParallel) and when:
            return _quiet(wrapped)
        return nullcontext()

    def gradients(self, parameters: Sequence[Tensor], *, weight: float) -> list[Tensor]:
        """Those of the whole batch, of parameters that this rank holds, its loss having had a weight."""
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """The L2 norm of the whole gradient."""
        return get_total_norm(gradients)

    def finite(self, gradients: Sequence[Tensor]) -> Tensor:
        """Whether the whole gradient is finite, as a flag on the device."""
        return all_finite(gradients)

    def agree(self, holds: bool) -> bool:
        """Whether something holds of the parts of all ranks."""
        return holds

    def summed(self, penalty: Penalty) -> Penalty:
        """The penalty on all parameters, from the one on those that this rank holds."""
        return penalty

    def scoring(self) -> AbstractContextManager[Any]:
        """Where models are evaluated, without gradients."""
        return torch.inference_mode()

    def weights(self, model: nn.Module) -> Mapping[str, Tensor]:
        """The whole state of a model, not copied where it is held."""
        return model.state_dict()

    def load_weights(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Take the whole state of a model, the first rank's."""
        model.load_state_dict(weights)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state_dict of an optimizer of the whole."""
        return optimizer.state_dict()

    def load_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Take this rank's part of such a state_dict, which each has; settings stay the optimizer's."""
        load_state(optimizer, state)


class ShardedState(Strategy):
    """As ever, but each parameter is stepped by one rank alone, which keeps its state and then hands it to all.

    Source: Rajbhandari et al. 2020, "ZeRO", stage 1; torch's ZeroRedundancyOptimizer.
    """

    name = "zero1"

    def suits(self, groups: Sequence[Mapping[str, Any]], make: Make) -> bool:
        """Whether the step of one parameter does not depend on another."""
        return all(alike(make, group, several=True) for group in groups)

    def share(self, optimizer: Optimizer, make: Make) -> Optimizer:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        groups = optimizer.param_groups  # with every setting, so that what `make` would set by itself is set already
        return ZeroRedundancyOptimizer(groups, lambda groups, **_: make(groups), **optimizer.defaults)  # type: ignore[arg-type]

    def own(self, optimizer: Any) -> Optimizer:
        kept: Optimizer = optimizer.optim
        return kept

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        optimizer.consolidate_state_dict()
        whole: dict[str, Any] = optimizer.state_dict() if self.ranks.leads else nothing()
        return whole

    def load_optimizer(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        names = {
            parameter: name
            for group in optimizer.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        }
        load_state(self.own(optimizer), state, names=names)


def nothing() -> dict[str, Any]:
    """The state_dict of an optimizer of no parameters."""
    return {"param_groups": [], "state": {}}


def alike(make: Make, group: Mapping[str, Any], *, several: bool) -> bool:
    """Whether two matrices, or the halves of one, are stepped each by itself as they are together, in float64."""
    device = group["params"][0].device
    numbers = torch.linspace(-1, 2, 24, dtype=torch.float64, device=device).view(8, 3)
    halves = [*numbers.chunk(2)]
    apart = torch.cat([_stepped(make, group, [half]) for half in halves])
    together = _stepped(make, group, halves if several else [numbers])
    return torch.allclose(together, apart, rtol=1e-4, atol=1e-6)


def _stepped(make: Make, group: Mapping[str, Any], values: Sequence[Tensor]) -> Tensor:
    """Parameters after two steps, in a row."""
    parameters = [nn.Parameter(value.clone()) for value in values]
    named = [(str(number), parameter) for number, parameter in enumerate(parameters)]
    settings = {key: value for key, value in group.items() if key != "param_names"}
    optimizer = make([{**settings, "params": named}])
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = (3 * parameter.detach()).cos()
        optimizer.step()
    return torch.cat([parameter.detach() for parameter in parameters])


@contextmanager
def _quiet(wrapped: nn.parallel.DistributedDataParallel) -> Iterator[None]:
    with wrapped.no_sync():
        yield
