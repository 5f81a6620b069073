"""torch's optimizers, Muon, the notes' rules and searches, and what each needs: groups by role, fused steps."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dltrain.optim import scratch, second_order
from dltrain.optim.eager import eager

# Any optimizer of torch that takes a step from dense gradients; our Muon and LBFGS take the place of torch's.
_OPTIMIZERS = {
    name: eager(each)
    for name, each in vars(torch.optim).items()
    if inspect.isclass(each) and issubclass(each, Optimizer) and name not in ("Optimizer", "SparseAdam")
}
_OPTIMIZERS |= {name: getattr(module, name) for module in (scratch, second_order) for name in module.__all__}
globals().update(_OPTIMIZERS)
__all__ = list(_OPTIMIZERS)

from dltrain.optim.lbfgs import LBFGS  # noqa: E402, F401  (after torch's of that name, as Muon)
from dltrain.optim.muon import Muon, orthogonalize  # noqa: E402, F401


def parameter_groups(
    model: nn.Module, *, weight_decay: float = 0.0, decay_bias_and_norm: bool = False
) -> list[dict[str, Any]]:
    """Split the trainable parameters by role, each group's `params` being (name, parameter) pairs.

    Roles: `hidden` (matrices and kernels), `classifier` (the last of these in registration order),
    `vector` (biases and norm parameters, decayed only if asked). A role without parameters has no group.
    """
    named = list(model.named_parameters())
    last_matrix = max((i for i, (_, parameter) in enumerate(named) if parameter.ndim >= 2), default=None)
    members: dict[str, list[tuple[str, nn.Parameter]]] = {"hidden": [], "classifier": [], "vector": []}
    for i, (name, parameter) in enumerate(named):
        role = "vector" if parameter.ndim < 2 else "classifier" if i == last_matrix else "hidden"
        if parameter.requires_grad:
            members[role].append((name, parameter))
    decay = dict.fromkeys(members, weight_decay)
    if not decay_bias_and_norm:
        decay["vector"] = 0.0
    return [{"params": pairs, "role": role, "weight_decay": decay[role]} for role, pairs in members.items() if pairs]


def fused_keywords(optimizer_class: Callable[..., Optimizer], *, device: torch.device) -> dict[str, bool]:
    """`{"fused": True}` where the class has a fused step that runs on the device, else `{}`."""
    if "fused" not in inspect.signature(optimizer_class).parameters:
        return {}
    probe = nn.Parameter(torch.zeros(1, device=device))
    probe.grad = torch.zeros_like(probe)
    try:
        optimizer_class([probe], fused=True).step()
    except RuntimeError:  # torch's answer where the device has no such kernel
        return {}
    return {"fused": True}
