"""torch's L-BFGS, as one of our optimizers: for parameters in groups, with a state that is tensors and numbers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from dltrain.optim.eager import eager

__all__ = ["LBFGS"]

HISTORY = ("old_dirs", "old_stps", "ro")
EVALUATIONS = 25  # that a line search may take


class LBFGS(eager(torch.optim.LBFGS)):  # type: ignore[misc]
    """Goes by the curvature that the last steps' gradients tell of, on whole batches (Nocedal and Wright, chapter 7.2).

    torch's, but that a step is a single iteration unless `max_iter` asks for more on the same batch, and that it
    searches along its direction unless `line_search=none`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1.0,
        max_iter: int = 1,
        tolerance_grad: float = 1.0e-7,
        tolerance_change: float = 1.0e-9,
        history_size: int = 100,
        line_search: Literal["strong_wolfe", "none"] = "strong_wolfe",
    ) -> None:
        for key, count in (("max_iter", max_iter), ("history_size", history_size)):
            if count < 1:
                raise ValueError(f"{key} must be 1 or more, not {count}")
        if line_search not in ("strong_wolfe", "none"):
            raise ValueError(f"line_search must be strong_wolfe or none, not {line_search}")
        groups = [each if isinstance(each, dict) else {"params": [each]} for each in params]
        super().__init__(
            [each for group in groups for each in group["params"]],
            lr=lr,
            max_iter=max_iter,
            max_eval=EVALUATIONS * max_iter,
            tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change,
            history_size=history_size,
            line_search_fn=None if line_search == "none" else line_search,
        )

    def step(self, closure: Callable[[], Tensor]) -> Any:
        def searched() -> Tensor:
            loss = closure()
            if not loss > -torch.inf:
                raise FloatingPointError
            for each in self._params:
                each.grad = None if each.grad is None else each.grad.contiguous()
            return loss

        try:
            return super().step(searched)
        except FloatingPointError:  # of which torch's search would make an IndexError
            for each in self._params:
                each.detach().fill_(torch.nan)  # which whoever runs the steps takes back
            return None

    def state_dict(self) -> dict[str, Any]:
        """The history as one tensor a kind, without what a step only uses."""
        found: dict[str, Any] = super().state_dict()
        found["state"] = {index: _packed(state) for index, state in found["state"].items()}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            if "d" in state:
                state.update({key: _unpacked(state.get(key)) for key in HISTORY})


def _unpacked(history: Tensor | None) -> list[Tensor]:
    """Vectors in memory of their own: where they begin within another tensor's changes how sums of them round."""
    return [] if history is None else [each.clone() for each in history]


def _packed(state: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in state.items() if key not in (*HISTORY, "al")}
    return kept | {key: torch.stack(state[key]) for key in HISTORY if state.get(key)}
