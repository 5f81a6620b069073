"""What an engine asks of any optimizer of torch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def tensors(optimizer: Optimizer) -> list[Tensor]:
    """The tensors of its state."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def be_capturable(*optimizers: Optimizer) -> None:
    """Have step counters made and read where the parameters are, so that nothing waits for them."""
    for optimizer in optimizers:
        optimizer._warned_capturable_if_run_uncaptured = True  # torch warns of eager steps
        for group in optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True


def load_state(optimizer: Optimizer, state: Mapping[str, Any], *, names: Mapping[Tensor, str] | None = None) -> None:
    """Load each parameter's state by the parameter's name, in its memory format; the settings stay the optimizer's.

    Of `state`, which has the form of a state_dict, only the names and the state are looked at. `names` are those of
    the optimizer's parameters, where it does not know them itself.
    """
    own = optimizer.state_dict()
    saved = {name: state["state"][index] for index, name in enumerate(_names(state)) if index in state["state"]}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own_names = _names(own) if names is None else [names[parameter] for parameter in parameters]
    own["state"] = {
        index: {key: _in_format_of(parameter, value) for key, value in saved[name].items()}
        for index, (name, parameter) in enumerate(zip(own_names, parameters, strict=True))
        if name in saved
    }
    optimizer.load_state_dict(own)


def _names(state: Mapping[str, Any]) -> list[str]:
    """Names of the parameters in order, or their numbers where they have none."""
    return [name for group in state["param_groups"] for name in group.get("param_names", group["params"])]


def _in_format_of(parameter: Tensor, value: Any) -> Any:
    """A copy of a value; fused steps read weights and state side by side and do not look at strides."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device, requires_grad=False).copy_(value)


@torch.no_grad()
def average(averaged: nn.Module, model: nn.Module, *, decay: float) -> None:
    """Move averaged weights and statistics towards those of a model: averages = decay averages + (1 - decay) model."""
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mean, buffer in zip(averaged.buffers(), model.buffers(), strict=True):
        mean.lerp_(buffer, 1 - decay) if buffer.is_floating_point() else mean.copy_(buffer)
