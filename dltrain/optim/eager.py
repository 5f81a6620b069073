"""torch's optimizers without what they import."""

import inspect
from typing import Any

import torch


def eager(optimizer_class: type[Any]) -> type[Any]:
    """The class without the wrappers that import torch's compiler, which takes longer than all else before a step."""
    wrapped = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
    raw = {name: inspect.unwrap(getattr(optimizer_class, name)) for name in wrapped}
    body = {
        **raw,
        "step": torch.no_grad()(raw["step"]),
        "__module__": optimizer_class.__module__,
        "__doc__": optimizer_class.__doc__,
    }
    return type(optimizer_class.__name__, (optimizer_class,), body)
