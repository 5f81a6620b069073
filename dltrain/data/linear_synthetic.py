"""A linear relation with noise, for a machine that has no table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import Dataset, Examples, digest
from .facts import VectorFacts

__all__ = ["linear_synthetic"]


def linear_synthetic(
    *,
    num_train: int = 1_000,
    num_test: int = 200,
    num_features: int = 5,
    num_outputs: int = 1,
    noise: float = 0.1,
    seed: int = 0,
) -> LinearSynthetic:
    """Targets X W + b + noise of standard normal features; W and b are standard normal too."""
    for key, value in (("num_train", num_train), ("num_features", num_features), ("num_outputs", num_outputs)):
        if value < 1:
            raise ValueError(f"data.{key}={value}: must be 1 or more")
    for key, number in (("num_test", num_test), ("noise", noise), ("seed", seed)):
        if number < 0:
            raise ValueError(f"data.{key}={number}: must be 0 or more")
    return LinearSynthetic({"train": num_train, "test": num_test}, num_features, num_outputs, noise, seed)


@dataclass
class LinearSynthetic(Dataset):
    """A Dataset that is drawn when it is loaded."""

    counts: dict[str, int]
    num_features: int
    num_outputs: int
    noise: float
    seed: int
    _digest: str = ""

    def facts(self) -> VectorFacts:
        counts = {part: count for part, count in self.counts.items() if count}
        return VectorFacts(num_examples=counts, num_features=self.num_features, num_outputs=self.num_outputs)

    def load(self) -> dict[str, Examples]:
        generator = np.random.default_rng(self.seed)
        weight = generator.standard_normal((self.num_features, self.num_outputs))
        bias = generator.standard_normal(self.num_outputs)
        parts = {}
        for part, count in self.facts().num_examples.items():
            features = generator.standard_normal((count, self.num_features))
            noise = self.noise * generator.standard_normal((count, self.num_outputs))
            targets = features @ weight + bias + noise
            parts[part] = Examples(features.astype(np.float32), targets.astype(np.float32))
        self._digest = digest(parts)
        return parts

    def fingerprint(self) -> str:
        assert self._digest, "known once load has run"
        return self._digest
