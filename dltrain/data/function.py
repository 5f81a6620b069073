"""A function of a point in place of examples: the model is the point, and the loss the function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from dltrain.landscapes import Landscape, landscape

from .augment import Augment
from .dataset import Dataset, Examples
from .facts import Facts, Served
from .preparation import AsStored

__all__ = ["function"]

MOST_MEASURED = 10  # coordinates that rows show


def function(
    *,
    function: str = "bowl",
    start: Sequence[float] | None = None,
    steps: int = 20,
    noise: float = 0.0,
    dimension: int | None = None,
    condition: float | None = None,
) -> Descent:
    """A landscape to go down in `steps` steps, of one example each, from a point.

    With noise, a step's loss is f(x) + xi.x with a slope xi of N(0, noise^2 I), which is drawn anew for each step from
    the seed and the step's number; evaluations are without. `dimension` and `condition` are the quadratic's.
    """
    chosen = landscape(function, dimension=dimension, condition=condition)
    point = chosen.start if start is None else tuple(map(float, start))
    if len(point) != chosen.dimension or not all(map(math.isfinite, point)):
        raise ValueError(f"data.start={list(point)}: {function} needs {chosen.dimension} coordinates")
    if steps < 1:
        raise ValueError(f"data.steps={steps}: must be 1 or more")
    if not 0 <= noise < math.inf:
        raise ValueError(f"data.noise={noise}: must be 0 or more")
    return Descent(chosen, point, steps, noise)


@dataclass(frozen=True, kw_only=True)
class FunctionFacts(Facts):
    """Of a function of a point: an example is the number of a step, its target the noise in the slope (dimension,)."""

    landscape: Landscape
    start: tuple[float, ...]
    noise: float
    noun: ClassVar[str] = "steps"
    idle_settings: ClassVar[tuple[str, ...]] = (*Facts.idle_settings, "standardize", "train_size", "shuffle")

    @property
    def example_bytes(self) -> int:
        return 8

    @property
    def disturbance(self) -> Augment | None:
        if not self.noise:
            return None

        def disturb(steps: Tensor, slopes: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
            drawn = torch.randn(slopes.shape, generator=generator, dtype=slopes.dtype, device=slopes.device)
            return steps, self.noise * drawn

        return disturb

    def served(self, settings: Mapping[str, Any]) -> Served:
        dimension = self.landscape.dimension
        return Served(
            input_shape=(),
            output_shape=(dimension,),
            facts={"start": list(self.start)},
            loss_facts={"function": partial(self.landscape.values, library=torch)},
            dtype=torch.float64,
            measures=tuple(f"x{place}" for place in range(1, min(dimension, MOST_MEASURED) + 1)),
        )

    def preparation(self, train: Examples, settings: Mapping[str, Any]) -> AsStored:
        return AsStored()


@dataclass
class Descent(Dataset):
    """A Dataset of so many steps; it brings a validation part of a single example, the point itself."""

    landscape: Landscape
    start: tuple[float, ...]
    steps: int
    noise: float

    def facts(self) -> FunctionFacts:
        counts = {"train": self.steps, "val": 1}
        return FunctionFacts(num_examples=counts, landscape=self.landscape, start=self.start, noise=self.noise)

    def fingerprint(self) -> str:
        """Of the function and the place to start from: nothing is stored."""
        told = (self.landscape.name, self.landscape.formula, self.start, self.steps, self.noise)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def load(self) -> dict[str, Examples]:
        dimension = self.landscape.dimension
        return {
            part: Examples(np.arange(count, dtype=np.float64), np.zeros((count, dimension)))
            for part, count in self.facts().num_examples.items()
        }
