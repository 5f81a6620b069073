"""Optimizers that look at the curvature of the loss, or search along a direction: few, costly steps of any model.

Their `step` needs a closure, which computes the loss, and its gradients where these are enabled, keeps the graph and
returns the loss. Sources: course notes; Nocedal and Wright, Numerical Optimization, 2006, by chapter below.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dltrain.optim.eager import eager
from dltrain.optim.line_search import Trial, armijo, strong_wolfe

__all__ = ["ConjugateGradient", "LineSearch", "Newton", "Preconditioned"]

Closure = Callable[[], Tensor]
MOST_PARAMETERS = 4_000  # of which a Hessian takes 16 million numbers, and as many backward passes as rows


class Searching(eager(Optimizer)):  # type: ignore[misc]
    """An optimizer of all parameters as one vector; the first group's rate is that of all."""

    def __init__(self, params: Iterable[Any], **keywords: Any) -> None:
        for key in ("lr", "damping"):
            if keywords.get(key, 0) < 0:
                raise ValueError(f"{key} must be 0 or more, not {keywords[key]}")
        super().__init__(params, keywords)
        self.parameters: list[Tensor] = [each for group in self.param_groups for each in group["params"]]

    @property
    def rate(self) -> float:
        """That of this step."""
        return float(self.param_groups[0]["lr"])

    @torch.no_grad()
    def step(self, closure: Closure) -> Tensor:
        with torch.enable_grad():
            loss = closure()
            gradient = self.gradient(loss)
        self.update(loss, gradient, closure)
        return loss.detach()

    def update(self, loss: Tensor, gradient: Tensor, closure: Closure) -> None:
        """Move, by the loss and its gradient (both with their graph) and further evaluations."""
        raise NotImplementedError

    def gradient(self, of: Tensor) -> Tensor:
        """That of a number, as one vector with its graph; zeros where a parameter does not matter to it."""
        found = torch.autograd.grad(of, self.parameters, create_graph=True, materialize_grads=True)
        return torch.cat([each.reshape(-1) for each in found])

    def curvature(self, gradient: Tensor, direction: Tensor) -> Tensor:
        """The Hessian times a direction, from the gradient's graph; zeros where the gradient is constant."""
        if not gradient.requires_grad:
            return torch.zeros_like(direction)
        with torch.enable_grad():
            along = gradient @ direction
        found = torch.autograd.grad(along, self.parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([each.reshape(-1) for each in found])

    def rows(self, gradient: Tensor) -> Iterator[Tensor]:
        """Those of the Hessian, one backward pass each."""
        unit = torch.zeros_like(gradient)
        for place in range(len(gradient)):
            unit.zero_()[place] = 1
            yield self.curvature(gradient, unit)

    def point(self) -> Tensor:
        """All parameters as one vector, a copy."""
        return torch.cat([each.detach().reshape(-1) for each in self.parameters])

    def place(self, point: Tensor) -> None:
        """Set all parameters from one vector."""
        sizes = [each.numel() for each in self.parameters]
        for each, part in zip(self.parameters, point.split(sizes), strict=True):
            each.copy_(part.view(each.shape))

    def losses(self, closure: Closure, direction: Tensor) -> Callable[[float], float]:
        """The loss by the distance from here along a direction; whoever asks must be placed afterwards."""
        start = self.point()

        def loss(distance: float) -> float:
            self.place(start + distance * direction)
            return float(closure())

        return loss


class Newton(Searching):
    """w -= lr H^-1 g, with the Hessian H of the loss (chapter 3.3).

    It goes to the nearest stationary point, a saddle or a maximum too. Remedies: `damping` is added to every eigenvalue
    of H, whose absolute values count with `absolute_eigenvalues` (Dauphin et al. 2014, arXiv:1406.2572). Directions
    without any curvature stay. Raises ValueError where H would be too large.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1.0,
        damping: float = 0.0,
        absolute_eigenvalues: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, damping=damping, absolute_eigenvalues=absolute_eigenvalues)
        _check_size(self.parameters)

    def update(self, loss: Tensor, gradient: Tensor, closure: Closure) -> None:
        group = self.param_groups[0]
        hessian = torch.stack(list(self.rows(gradient)))
        if not hessian.isfinite().all():
            self.place(torch.full_like(gradient, torch.nan))  # which whoever runs the steps takes back
            return
        eigenvalues, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
        if group["absolute_eigenvalues"]:
            eigenvalues = eigenvalues.abs()
        along = vectors.T @ gradient.detach()
        self.place(self.point() - self.rate * (vectors @ _divided(along, eigenvalues + group["damping"])))


class Preconditioned(Searching):
    """w -= lr diag(H)^-1 g, with the diagonal of the Hessian; coordinates without curvature stay.

    Source: course notes. Raises ValueError where there are too many parameters.
    """

    def __init__(self, params: Iterable[Any], *, lr: float = 1.0) -> None:
        super().__init__(params, lr=lr)
        _check_size(self.parameters)

    def update(self, loss: Tensor, gradient: Tensor, closure: Closure) -> None:
        diagonal = torch.stack([row[place] for place, row in enumerate(self.rows(gradient))])
        self.place(self.point() - self.rate * _divided(gradient.detach(), diagonal))


class LineSearch(Searching):
    """Steepest descent by lr g'g / g'Hg, the exact distance to the least value along -g where the loss is quadratic.

    Where it is not, that distance is halved until the loss falls enough (Armijo's rule, chapter 3.1); where g'Hg is not
    above 0, lr is the distance tried first.
    """

    def __init__(self, params: Iterable[Any], *, lr: float = 1.0) -> None:
        super().__init__(params, lr=lr)

    def update(self, loss: Tensor, gradient: Tensor, closure: Closure) -> None:
        self.place(_descended(self, loss, gradient, -gradient.detach(), closure))


class ConjugateGradient(Searching):
    """d = -g + beta d with beta = max(0, g_new'(g_new - g) / g'g) (Polak and Ribière, chapter 5.2).

    The step along d is `exact`, lr times -g'd / d'Hd, halved where a loss that is no quadratic does not fall, or the
    first that meets the conditions of `strong_wolfe`, tried from lr on. On a quadratic of n coordinates exact steps end
    after n. Where d does not lead down it is -g again.
    """

    def __init__(
        self, params: Iterable[Any], *, lr: float = 1.0, step: Literal["exact", "strong_wolfe"] = "exact"
    ) -> None:
        if step not in ("exact", "strong_wolfe"):
            raise ValueError(f"step must be exact or strong_wolfe, not {step}")
        super().__init__(params, lr=lr, search=step)

    def update(self, loss: Tensor, gradient: Tensor, closure: Closure) -> None:
        g = gradient.detach()
        direction = self._direction(g)
        if self.param_groups[0]["search"] == "exact":
            self.place(_descended(self, loss, gradient, direction, closure))
        else:
            self._search(loss, g, direction, closure)
        self._remember("gradient", g)
        self._remember("direction", direction)

    def _direction(self, g: Tensor) -> Tensor:
        if "direction" not in self.state[self.parameters[0]]:
            return -g
        before = self._remembered("gradient")
        square = before @ before
        beta = (g @ (g - before) / square).clamp(min=0) if square > 0 else 0
        direction = -g + beta * self._remembered("direction")
        return direction if g @ direction < 0 else -g

    def _search(self, loss: Tensor, g: Tensor, direction: Tensor, closure: Closure) -> None:
        """Go to a point that meets the strong Wolfe conditions."""
        start = self.point()

        def trial_at(distance: float) -> Trial:
            self.place(start + distance * direction)
            with torch.enable_grad():
                value = closure()
            found = [torch.zeros_like(each) if each.grad is None else each.grad for each in self.parameters]
            slope = torch.cat([each.reshape(-1) for each in found]) @ direction
            return Trial(distance, float(value), float(slope))

        first = self.rate / max(1.0, float(direction.abs().sum()))
        slope, slack = float(g @ direction), _slack(loss)
        self.place(start + strong_wolfe(trial_at, float(loss), slope, first=first, slack=slack) * direction)

    def _remember(self, key: str, vector: Tensor) -> None:
        sizes = [each.numel() for each in self.parameters]
        for each, part in zip(self.parameters, vector.split(sizes), strict=True):
            self.state[each][key] = part.reshape(each.shape).clone()

    def _remembered(self, key: str) -> Tensor:
        return torch.cat([self.state[each][key].reshape(-1) for each in self.parameters])


def _descended(ours: Searching, loss: Tensor, gradient: Tensor, direction: Tensor, closure: Closure) -> Tensor:
    """The point along a direction at the exact distance of a quadratic, or nearer."""
    start, slope = ours.point(), float(gradient.detach() @ direction)
    curvature = float(direction @ ours.curvature(gradient, direction))
    first = ours.rate * (-slope / curvature if curvature > 0 else 1.0)
    distance = armijo(ours.losses(closure, direction), float(loss), slope, first=first, slack=_slack(loss))
    return start + distance * direction


def _slack(loss: Tensor) -> float:
    """By what rounding may change a loss."""
    return 10 * torch.finfo(loss.dtype).eps * abs(float(loss))


def _divided(gradient: Tensor, curvatures: Tensor) -> Tensor:
    """Gradient by curvature, 0 where that is 0 but for rounding."""
    least = len(curvatures) * torch.finfo(curvatures.dtype).eps * curvatures.abs().max()
    return torch.where(curvatures.abs() <= least, torch.zeros_like(gradient), gradient / curvatures)


def _check_size(parameters: list[Tensor]) -> None:
    count = sum(each.numel() for each in parameters)
    if count > MOST_PARAMETERS:
        raise ValueError(
            f"{count:,} parameters, and a Hessian of more than {MOST_PARAMETERS:,} is too large: "
            "choose optim=lbfgs or optim=conjugate_gradient"
        )
