"""How what is stored becomes what a model takes: a part of the model, kept with its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from .resize import resize, resize_matrix

WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


class Preparation(Protocol):
    """Makes inputs and targets of a stored batch, on the device that it is on."""

    def inputs(self, stored: Tensor) -> Tensor: ...

    def targets(self, stored: Tensor) -> Tensor: ...

    def outputs(self, outputs: Tensor) -> Tensor:
        """The model's outputs in the unit of the stored targets."""

    def state(self) -> dict[str, Any]:
        """Plain values, of which `restored` makes it again."""


@dataclass
class Pixels:
    """Standardizes images (B, C, H, W) in grey levels and resizes them to (B, C, image_size, image_size).

    Mean and deviation are (C, 1, 1) or (C, H, W). Standardization is affine and resizing a weighted mean, so their
    order does not matter, and this one touches fewer pixels. (By feature it does matter, and the means are of
    stored images too.) `stored_size` is the side of the images it was made for and `level`
    their mean grey level, where these are known.
    """

    image_size: int
    mean: Tensor
    deviation: Tensor
    memory_format: torch.memory_format = torch.contiguous_format
    stored_size: int | None = None
    level: float | None = None
    _placed: dict[Any, tuple[Tensor | None, ...]] = field(default_factory=dict, repr=False)

    def inputs(self, stored: Tensor) -> Tensor:
        mean, deviation, matrix, across = self._on(stored.device, *stored.shape[-2:])
        # A copy was made of bytes, and of floats by the augmentation: they are ours to change.
        images = stored.float().sub_(mean).div_(deviation)
        if matrix is not None:
            images = resize(images, matrix, across)
        images = images.contiguous(memory_format=self.memory_format)
        if self.memory_format != torch.contiguous_format:
            return images
        # Of one channel the bytes are the same in both formats, and layers compute in the one that the strides name.
        return images.flatten().view(images.shape)

    def targets(self, stored: Tensor) -> Tensor:
        return stored

    def outputs(self, outputs: Tensor) -> Tensor:
        return outputs

    def state(self) -> dict[str, Any]:
        return {
            "kind": "pixels",
            "image_size": self.image_size,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "stored_size": self.stored_size,
            "level": self.level,
        }

    def _on(self, device: torch.device, height: int, width: int) -> tuple[Any, ...]:
        """Mean, deviation and the matrices of a resize, if there is one, on a device."""
        key = (device, height, width)
        if key not in self._placed:
            as_it_is = height == width == self.image_size
            down = None if as_it_is else resize_matrix(height, self.image_size).to(device)
            across = None if height == width else resize_matrix(width, self.image_size).to(device)
            self._placed[key] = (self.mean.to(device), self.deviation.to(device), down, across)
        return self._placed[key]


@dataclass
class Features:
    """Standardizes vectors (B, features), and targets (B, outputs) where those have a mean and deviation."""

    mean: Tensor
    deviation: Tensor
    target_mean: Tensor | None = None
    target_deviation: Tensor | None = None
    _placed: dict[torch.device, list[Tensor]] = field(default_factory=dict, repr=False)

    def inputs(self, stored: Tensor) -> Tensor:
        mean, deviation, *_ = self._on(stored.device)
        return (stored - mean) / deviation

    def targets(self, stored: Tensor) -> Tensor:
        if self.target_mean is None or self.target_deviation is None:
            return stored
        *_, mean, deviation = self._on(stored.device)
        return (stored - mean) / deviation

    def outputs(self, outputs: Tensor) -> Tensor:
        if self.target_mean is None or self.target_deviation is None:
            return outputs
        *_, mean, deviation = self._on(outputs.device)
        return outputs * deviation + mean

    def state(self) -> dict[str, Any]:
        each = (self.mean, self.deviation, self.target_mean, self.target_deviation)
        names = ("mean", "deviation", "target_mean", "target_deviation")
        return {
            "kind": "features",
            **{name: t if t is None else t.tolist() for name, t in zip(names, each, strict=True)},
        }

    def _on(self, device: torch.device) -> list[Tensor]:
        """Means and deviations on a device, brought there once, as the host waits for it."""
        if device not in self._placed:
            each = (self.mean, self.deviation, self.target_mean, self.target_deviation)
            self._placed[device] = [values.to(device) for values in each if values is not None]
        return self._placed[device]


class AsStored:
    """Changes nothing: what is stored is what the model takes."""

    def inputs(self, stored: Tensor) -> Tensor:
        return stored

    def targets(self, stored: Tensor) -> Tensor:
        return stored

    def outputs(self, outputs: Tensor) -> Tensor:
        return outputs

    def state(self) -> dict[str, Any]:
        return {"kind": "as_stored"}


@dataclass
class Tokens(AsStored):
    """Text as tokens, by their numbers in a vocabulary: characters, or words and punctuation marks."""

    level: str = "char"
    lower: bool = False

    def split(self, text: str) -> list[str]:
        """The tokens of a text."""
        text = text.lower() if self.lower else text
        return list(text) if self.level == "char" else WORD.findall(text)

    def join(self, tokens: Sequence[str]) -> str:
        """A text of tokens, words with spaces between them."""
        return ("" if self.level == "char" else " ").join(tokens)

    def state(self) -> dict[str, Any]:
        return {"kind": "tokens", "level": self.level, "lower": self.lower}


KINDS: dict[str, Any] = {"pixels": Pixels, "features": Features, "as_stored": AsStored, "tokens": Tokens}


def restored(state: dict[str, Any]) -> Preparation:
    """The preparation that a state tells of."""
    values = {
        key: torch.tensor(each) if isinstance(each, list) else each for key, each in state.items() if key != "kind"
    }
    preparation: Preparation = KINDS[state["kind"]](**values)
    return preparation
