"""Muon, which torch lacks in this form."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from dltrain.optim.eager import eager


class Muon(eager(Optimizer)):  # type: ignore[misc]
    """Momentum orthogonalised by Newton-Schulz for hidden matrices and kernels, AdamW for all else.

    A group of role `hidden` (the default) starts from `lr` and takes Muon's step, a kernel being a matrix
    of one row per output channel; a group of any other role starts from `adamw_lr` and takes AdamW's.
    Source: Keller Jordan, https://kellerjordan.github.io/posts/muon.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.01,
        adamw_lr: float = 3.0e-4,
        adamw_betas: Sequence[float] = (0.9, 0.95),
        adamw_eps: float = 1.0e-10,
        products: torch.dtype | None = None,
    ) -> None:
        """Orthogonalise in the format `products`, or in the gradients' own.

        Raises ValueError for a value out of range and for a vector in a hidden group.
        """
        _require(lr >= 0, "lr", lr, "0 or more")
        _require(0 <= momentum < 1, "momentum", momentum, "in [0, 1)")
        _require(ns_steps >= 1, "ns_steps", ns_steps, "1 or more")
        _require(weight_decay >= 0, "weight_decay", weight_decay, "0 or more")
        _require(adamw_lr >= 0, "adamw_lr", adamw_lr, "0 or more")
        two_fractions = len(adamw_betas) == 2 and all(0 <= beta < 1 for beta in adamw_betas)
        _require(two_fractions, "adamw_betas", adamw_betas, "two numbers in [0, 1)")
        _require(adamw_eps >= 0, "adamw_eps", adamw_eps, "0 or more")
        # `capturable` says that the rate may be on the device, of which the host reads nothing; `fused` also makes
        # load_state_dict put the step counters back where the parameters are.
        settings = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "products": products}
        self._muon_defaults = {"lr": lr, **settings, "capturable": True}
        self._adamw_defaults = {"lr": adamw_lr, "betas": adamw_betas, "eps": adamw_eps, "fused": True}
        super().__init__(params, {"role": "hidden", "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        hidden = param_group.get("role", "hidden") == "hidden"
        super().add_param_group((self._muon_defaults if hidden else self._adamw_defaults) | param_group)
        shapes = [tuple(parameter.shape) for parameter in self.param_groups[-1]["params"]]
        for shape in shapes if hidden else ():
            _require(len(shape) >= 2, "shape of a hidden parameter", shape, "of two or more dimensions")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [parameter for parameter in group["params"] if parameter.grad is not None]
            grads = [parameter.grad for parameter in params]
            if params:
                update = self._muon_step if group["role"] == "hidden" else self._adamw_step
                update(params, grads, group)
        return loss

    def _muon_step(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        averages = [self._state(parameter, "momentum") for parameter in params]
        torch._foreach_lerp_(averages, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, averages, momentum) if group["nesterov"] else averages
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])

        same_shape = defaultdict(list)  # so that all matrices of a shape share one batch of products
        for parameter, update in zip(params, updates, strict=True):
            matrix = update.flatten(1)
            same_shape[matrix.shape].append((parameter, matrix))
        for (rows, columns), pairs in same_shape.items():
            stacked = torch.stack([matrix for _, matrix in pairs])
            matrices = orthogonalize(stacked, steps=group["ns_steps"], dtype=group["products"])
            matrices *= group["lr"] * math.sqrt(max(1, rows / columns))
            for (parameter, _), matrix in zip(pairs, matrices, strict=True):
                parameter -= matrix.reshape(parameter.shape)

    def _adamw_step(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        adamw(
            params,
            grads,
            [self._state(parameter, "exp_avg") for parameter in params],
            [self._state(parameter, "exp_avg_sq") for parameter in params],
            [],
            [self._state(parameter, "step", size=(), dtype=torch.float32) for parameter in params],
            fused=group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state(self, parameter: Tensor, key: str, **form: Any) -> Tensor:
        state: dict[str, Tensor] = self.state[parameter]
        if key not in state:
            state[key] = parameter.new_zeros(**form) if form else torch.zeros_like(parameter)
        return state[key]


def orthogonalize(matrices: Tensor, *, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """Move the singular values of matrices (batch, rows, columns) to about 1 (between 0.7 and 1.2).

    Quintic Newton-Schulz iteration with Keller Jordan's coefficients, which trade exactness for speed and were chosen
    for bfloat16; multiplied in `dtype`, or in the matrices' own.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(dtype or x.dtype)
    for _ in range(steps):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _require(holds: bool, key: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{key} must be {allowed}, not {value}")
