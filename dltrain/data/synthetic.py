"""Garments drawn in code, for a machine that has no data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import Dataset, Examples, digest
from .facts import ImageFacts
from .garments import GARMENTS, SIZE, draw

__all__ = ["synthetic"]


def synthetic(*, num_train: int = 10_000, num_test: int = 1_000, seed: int = 0) -> Synthetic:
    """Fashion-MNIST's shapes and classes; an image depends on the seed, its part and its index alone."""
    for key, value in (("num_train", num_train), ("num_test", num_test)):
        if value < 1:
            raise ValueError(f"data.{key}={value}: draw at least one")
    if seed < 0:
        raise ValueError(f"data.seed={seed}: must be 0 or more")
    return Synthetic({"train": num_train, "test": num_test}, seed)


@dataclass
class Synthetic(Dataset):
    """A Dataset that is drawn when it is loaded."""

    counts: dict[str, int]
    seed: int
    _digest: str = ""

    def facts(self) -> ImageFacts:
        return ImageFacts(
            in_channels=1,
            image_size=SIZE,
            class_names=tuple(GARMENTS),
            num_examples=dict(self.counts),
        )

    def labels(self, part: str = "train") -> np.ndarray:
        return self._draw(part).targets

    def load(self) -> dict[str, Examples]:
        parts = {part: self._draw(part) for part in self.counts}
        self._digest = digest(parts)
        return parts

    def fingerprint(self) -> str:
        assert self._digest, "known once load has run"
        return self._digest

    def _draw(self, part: str) -> Examples:
        return Examples(*draw(self.counts[part], seed=(self.seed, list(self.counts).index(part))))
