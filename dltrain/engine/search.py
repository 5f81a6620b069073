"""Steps of optimizers that evaluate the loss anew, as often as they need, before they decide where to go."""

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltrain.engine.guard import all_finite

if TYPE_CHECKING:
    from dltrain.engine.step import Batch, Engine


def searches(optimizer: Optimizer | type[Optimizer]) -> bool:
    """Whether its steps need a closure: such an optimizer evaluates the loss itself, and decides on the host."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def search(engine: "Engine", batch: "Batch") -> Tensor:
    """Have the optimizer step by the loss of a batch; returns whether the weights are finite after it, as a flag.

    Batch norm counts the batch once, and dropout draws the same in every evaluation. Where the weights are not finite,
    what the optimizer remembers is forgotten, for it led there.
    """
    seed, buffers = engine.generator.initial_seed(), [buffer.clone() for buffer in engine.buffers]

    def closure() -> Tensor:
        engine.generator.manual_seed(seed)
        parts = [loss * (len(targets) / len(batch[0])) for loss, _, targets in engine.losses(batch)]
        loss = torch.stack(parts).sum()
        if torch.is_grad_enabled():
            engine.optimizer.zero_grad(set_to_none=True)
            loss.backward(retain_graph=True)
        return loss

    engine.optimizer.step(closure)  # type: ignore[arg-type]
    for buffer, before in zip(engine.buffers, buffers, strict=True):
        buffer.copy_(before)
    finite = all_finite([parameter.detach() for parameter in engine.parameters])
    if not finite:
        engine.optimizer.state.clear()
    return finite
