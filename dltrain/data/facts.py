"""What is known of data before it is decoded, by kind, and how inputs are made of what is stored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .preparation import Features, Pixels, Preparation, Tokens
from .statistics import grey_level, mean_and_deviation, of_vectors

if TYPE_CHECKING:
    from .augment import Augment
    from .dataset import Examples


@dataclass(frozen=True, kw_only=True)
class Facts(ABC):
    """What a model, a loss and a schedule must know before anything is decoded; examples are counted by part."""

    num_examples: dict[str, int]
    class_names: tuple[str, ...] = ()
    noun: ClassVar[str] = "rows"
    contiguous: ClassVar[bool] = False  # whether neighbours belong together: the end of the training part validates
    idle_settings: ClassVar[tuple[str, ...]] = ("image_size", "classes", "resident_limit", "workers")

    @property
    def num_classes(self) -> int:
        """0 where the targets are numbers."""
        return len(self.class_names)

    @property
    @abstractmethod
    def example_bytes(self) -> int:
        """Of an input as it is stored, decoded."""

    @abstractmethod
    def served(self, settings: Mapping[str, Any]) -> Served:
        """What a model sees under the settings of the group `data`."""

    @abstractmethod
    def preparation(self, train: Examples, settings: Mapping[str, Any]) -> Preparation:
        """What is stored made into what a model sees, by statistics of the training examples alone.

        Besides the settings of the group `data` there is "memory_format", and "team", the ranks that come to it.
        """

    def sequence(self, count: int, *, batch_size: int) -> Tensor | None:
        """The order of so many training examples where they are not shuffled; None: as they are stored."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the data before a run."""
        return ()

    @property
    def disturbance(self) -> Augment | None:
        """What is drawn anew for every training batch by the nature of the data, whatever the augmentation."""
        return None

    @property
    def num_bytes(self) -> int:
        """Of the inputs of all parts."""
        return sum(self.num_examples.values()) * self.example_bytes


@dataclass(frozen=True, kw_only=True)
class Served:
    """The shapes of an input and of the output it must lead to, without the batch, and what a component may ask for.

    `facts` are by the names that components give them, and are kept with the weights as JSON; those in `loss_facts`
    are for the loss alone and may be anything. `measures` names what rows show beside the loss.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    facts: Mapping[str, Any]
    dtype: torch.dtype = torch.float32
    measures: tuple[str, ...] = ()
    loss_facts: Mapping[str, Any] = field(default_factory=dict)

    def blank(self, count: int) -> Tensor:
        """So many inputs of zeros."""
        return torch.zeros(count, *self.input_shape, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class ImageFacts(Facts):
    """Of images uint8 (N, in_channels, image_size, image_size) of classes; the side is that of the stored ones."""

    in_channels: int
    image_size: int
    left_out: str = ""  # which pictures do not count, and why
    noun: ClassVar[str] = "images"
    idle_settings: ClassVar[tuple[str, ...]] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        return (self.left_out,) if self.left_out else ()

    @property
    def example_bytes(self) -> int:
        return self.in_channels * self.image_size**2

    def served(self, settings: Mapping[str, Any]) -> Served:
        side = settings["image_size"]
        return Served(
            input_shape=(self.in_channels, side, side),
            output_shape=(self.num_classes,),
            facts={"in_channels": self.in_channels, "image_size": side, "num_classes": self.num_classes},
            measures=("accuracy",),
        )

    def preparation(self, train: Examples, settings: Mapping[str, Any]) -> Pixels:
        team = settings["team"]
        mean, deviation = mean_and_deviation(train.inputs, standardize=settings["standardize"], team=team)
        return Pixels(
            mean=mean,
            deviation=deviation,
            image_size=settings["image_size"],
            memory_format=settings["memory_format"],
            stored_size=self.image_size,
            level=team.once(lambda: grey_level(train.inputs)),
        )


@dataclass(frozen=True, kw_only=True)
class VectorFacts(Facts):
    """Of vectors float32 (N, num_features), with targets float32 (N, num_outputs) or, where there are names, classes.

    `given` is a preparation by other statistics than those of the training examples.
    """

    num_features: int
    num_outputs: int = 1
    standardize_target: bool = True
    given: Features | None = None

    @property
    def example_bytes(self) -> int:
        return 4 * self.num_features

    def served(self, settings: Mapping[str, Any]) -> Served:
        classes = {"num_classes": self.num_classes} if self.num_classes else {}
        return Served(
            input_shape=(self.num_features,),
            output_shape=(self.num_classes or self.num_outputs,),
            facts={"num_features": self.num_features, **classes},
            measures=("accuracy",) if classes else (),
        )

    def preparation(self, train: Examples, settings: Mapping[str, Any]) -> Features:
        if self.given is not None:
            return self.given
        how = {"standardize": settings["standardize"]}
        both = self.standardize_target and not self.num_classes
        measured = (train.inputs, train.targets) if both else (train.inputs,)
        found = settings["team"].once(lambda: [each for values in measured for each in of_vectors(values, **how)])
        return Features(*found)


@dataclass(frozen=True, kw_only=True)
class TextFacts(Facts):
    """Of windows of tokens int64 (N, length), with the token that follows each as the target; names are the vocabulary.

    `entropy_rate` is that of the source in nats a token, where it is known.
    """

    length: int
    tokens: Tokens
    entropy_rate: float | None = None
    noun: ClassVar[str] = "windows"
    contiguous: ClassVar[bool] = True
    idle_settings: ClassVar[tuple[str, ...]] = (*Facts.idle_settings, "standardize")

    @property
    def num_classes(self) -> int:
        """0: a window belongs to no class."""
        return 0

    @property
    def example_bytes(self) -> int:
        return 8 * self.length

    def served(self, settings: Mapping[str, Any]) -> Served:
        return Served(
            input_shape=(self.length,),
            output_shape=(len(self.class_names), self.length),
            facts={"num_classes": len(self.class_names)},
            dtype=torch.int64,
            measures=("perplexity", "bits", "entropy"),
        )

    def preparation(self, train: Examples, settings: Mapping[str, Any]) -> Tokens:
        return self.tokens

    def sequence(self, count: int, *, batch_size: int) -> Tensor:
        """Row j of a batch goes on where row j of the batch before ended; the text's end is the last, partial batch."""
        steps = count // batch_size
        whole = torch.arange(steps * batch_size).view(batch_size, steps).T.flatten()
        return torch.cat([whole, torch.arange(len(whole), count)])

    @property
    def notes(self) -> tuple[str, ...]:
        words = f"windows of {self.length} tokens out of a vocabulary of {len(self.class_names)} ({self.tokens.level}s)"
        if self.entropy_rate is None:
            return (words,)
        least = f"on a long text no perplexity is below {math.exp(self.entropy_rate):.4f}"
        return words, f"the source's entropy rate is {self.entropy_rate:.4f} nats a token: {least}"


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def natural_order(name: str) -> tuple[bool, float, str]:
    """The order of classes by their names: numbers by their size, before words."""
    return (False, float(name), name) if is_number(name) else (True, 0.0, name)
