"""The course notes' update rules, written out; torch's own are faster and, where it is said, differ.

Source: the formulas of "Deep Learning from Scratch" and "Dive into Deep Learning"; g is the gradient of a mini-batch's
mean loss, and all state begins at 0. `weight_decay` adds as many times the weights to g.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltrain.optim.eager import eager

__all__ = ["ScratchAdaGrad", "ScratchAdam", "ScratchMomentum", "ScratchNesterov", "ScratchSGD"]


class Rule(eager(Optimizer)):  # type: ignore[misc]
    """An update rule for one parameter; the groups' own keywords may change from step to step."""

    def __init__(self, params: Iterable[Any], **keywords: Any) -> None:
        for key in ("lr", "weight_decay", "eps"):
            if keywords.get(key, 0) < 0:
                raise ValueError(f"{key} must be 0 or more, not {keywords[key]}")
        fractions = [
            ("momentum", keywords.get("momentum", 0)),
            *(("betas", beta) for beta in keywords.get("betas", ())),
        ]
        for key, value in fractions:
            if not 0 <= value < 1:
                raise ValueError(f"{key} must be in [0, 1), not {value}")
        # A tensor of the rate and counters on the device are all that these rules need to be recorded.
        super().__init__(params, {**keywords, "capturable": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    g = parameter.grad + group["weight_decay"] * parameter
                    self.update(parameter, g, group)
        return loss

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        """Change the weights `w` in place."""
        raise NotImplementedError

    def remembered(self, w: Tensor, key: str) -> Tensor:
        """The state of a parameter under a key, of its shape, at first 0."""
        state: dict[str, Tensor] = self.state[w]
        if key not in state:
            state[key] = torch.zeros_like(w)
        return state[key]


class ScratchSGD(Rule):
    """w -= lr g; torch's SGD does the same."""

    def __init__(self, params: Iterable[Any], *, lr: float = 0.01, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        w -= group["lr"] * g


class ScratchMomentum(Rule):
    """v = momentum v - lr g; w += v.

    torch keeps the rate out of v: the two are one while the rate stays, and differ under a schedule.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        v = self.remembered(w, "v")
        v.mul_(group["momentum"]).sub_(group["lr"] * g)
        w += v


class ScratchNesterov(Rule):
    """w += momentum^2 v - (1 + momentum) lr g with the v of before; then v = momentum v - lr g.

    The listing of the notes (`form=notes`) moves v first and uses the new one, so that its first step is 2.71 lr g in
    place of 1.9 (momentum .9): on curvature L it is stable for lr L below 2 (1 + m) / (1 + 2 m + 2 m^2), the corrected
    form, which is torch's, below 2 (1 + m) / (1 + 2 m).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.01,
        momentum: float = 0.9,
        form: Literal["corrected", "notes"] = "corrected",
        weight_decay: float = 0.0,
    ) -> None:
        if form not in ("corrected", "notes"):
            raise ValueError(f"form must be corrected or notes, not {form}")
        super().__init__(params, lr=lr, momentum=momentum, form=form, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        v, momentum, lr = self.remembered(w, "v"), group["momentum"], group["lr"]
        before = v.clone()
        v.mul_(momentum).sub_(lr * g)
        w += momentum**2 * (v if group["form"] == "notes" else before) - (1 + momentum) * lr * g


class ScratchAdaGrad(Rule):
    """h += g^2; w -= lr g / (sqrt(h) + eps); torch's Adagrad is the same with eps 1e-7 in place of 1e-10."""

    def __init__(
        self, params: Iterable[Any], *, lr: float = 0.01, eps: float = 1.0e-7, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, eps=eps, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        h = self.remembered(w, "h")
        h += g * g
        w -= group["lr"] * g / (h.sqrt() + group["eps"])


class ScratchAdam(Rule):
    """m and v follow g and g^2; w -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    torch adds its eps after the correction of v: ours is torch's times sqrt(1 - b2^t), 0.03 of it in the first step.
    Source: Kingma and Ba 2015, section 2, last paragraph.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.001,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1.0e-7,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any]) -> None:
        m, v = self.remembered(w, "m"), self.remembered(w, "v")
        t = self.state[w].setdefault("t", w.new_zeros(()))
        b1, b2 = group["betas"]
        t += 1
        m += (1 - b1) * (g - m)
        v += (1 - b2) * (g * g - v)
        w -= group["lr"] * (1 - b2**t).sqrt() / (1 - b1**t) * m / (v.sqrt() + group["eps"])
