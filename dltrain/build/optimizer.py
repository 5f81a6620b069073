"""The optimizer that a configuration names."""

import torch
from omegaconf import DictConfig
from torch import nn

from dltrain import optim
from dltrain.components import find, make
from dltrain.engine.strategy import Make


def make_optimizer(node: DictConfig, model: nn.Module, precision: str) -> torch.optim.Optimizer:
    """The optimizer over the model's parameters in groups by role, fused where the device can."""
    decay = {key: node[key] for key in ("weight_decay", "decay_bias_and_norm") if key in node}
    return optimizer_maker(node, model, precision)(optim.parameter_groups(model, **decay))


def optimizer_maker(node: DictConfig, model: nn.Module, precision: str) -> Make:
    """What makes such optimizers of any parameter groups on the model's device, for steps in a precision."""
    device = next(model.parameters()).device
    fused = optim.fused_keywords(find(optim, node.name, "optim"), device=device)
    products = torch.bfloat16 if precision == "bf16" else None
    return lambda groups: make(optim, node, params=groups, products=products, **fused)
