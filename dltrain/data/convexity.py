"""Whether a function is convex, by three tests of random points, any of which can prove that it is not.

Source: course notes; Boyd and Vandenberghe, Convex Optimization, 2004, chapters 3.1 and 3.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dltrain.landscapes import Landscape

PAIRS = 20_000
ROUNDING = 1e-9  # of the values' or the curvatures' range


class Violation(NamedTuple):
    """Points x and y, the share a of x, and the value f(ax + (1-a)y) above what it must not exceed."""

    x: np.ndarray
    y: np.ndarray
    share: float
    value: float
    bound: float


class Convexity(NamedTuple):
    """The worst violations of the definition and of the sublevel sets, and the smallest curvature and where it is."""

    definition: Violation | None
    sublevel: Violation | None
    curvature: float
    place: np.ndarray
    is_negative: bool

    @property
    def refuted(self) -> bool:
        """Whether one of the tests shows that the function is not convex."""
        return self.definition is not None or self.sublevel is not None or self.is_negative


def convexity(landscape: Landscape, *, pairs: int = PAIRS, seed: int = 0) -> Convexity:
    """Test a function on its usual part.

    The definition is f(ax + (1-a)y) <= a f(x) + (1-a) f(y); of a convex function each set {f <= b} is convex, so that
    the middle of x and y does not lie above the higher of both; and no Hessian has an eigenvalue below 0.
    """
    generator = np.random.default_rng(seed)
    low, high = np.array(landscape.domain).T
    x, y = generator.uniform(low, high, (2, pairs, landscape.dimension))
    share = generator.uniform(0, 1, pairs)
    at_x, at_y, inside, middle = (
        landscape.values(points, np) for points in (x, y, share[:, None] * (x - y) + y, (x + y) / 2)
    )
    slack = ROUNDING * float(np.ptp(at_x))
    definition = _worst(x, y, share, inside, share * at_x + (1 - share) * at_y, slack)
    sublevel = _worst(x, y, np.full(pairs, 0.5), middle, np.maximum(at_x, at_y), slack)
    smallest, largest = _curvatures(landscape, x)
    worst = int(smallest.argmin())
    is_negative = bool(smallest[worst] < -ROUNDING * np.abs(largest).max())
    return Convexity(definition, sublevel, float(smallest[worst]), x[worst], is_negative)


def _worst(
    x: np.ndarray, y: np.ndarray, share: np.ndarray, values: np.ndarray, bounds: np.ndarray, slack: float
) -> Violation | None:
    place = int(np.argmax(values - bounds))
    if values[place] <= bounds[place] + slack:
        return None
    return Violation(x[place], y[place], float(share[place]), float(values[place]), float(bounds[place]))


def _curvatures(landscape: Landscape, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest eigenvalue of the Hessian at each point."""
    x = torch.tensor(points, requires_grad=True)
    (gradients,) = torch.autograd.grad(landscape.values(x, torch).sum(), x, create_graph=True)
    rows: list[Tensor] = [
        torch.autograd.grad(gradients[:, place].sum(), x, retain_graph=True)[0] for place in range(landscape.dimension)
    ]
    eigenvalues = torch.linalg.eigvalsh(torch.stack(rows, dim=1)).numpy()
    return eigenvalues[:, 0], eigenvalues[:, -1]
