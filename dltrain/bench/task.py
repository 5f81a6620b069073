"""One piece of work for every contestant: the same network, weights, batches and optimizer."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltrain import data
from dltrain.build import Run, build
from dltrain.components import make
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.engine.step import Batch
from dltrain.models.summary import train_flops

# Pixels from 0 to 1, as torchvision's ToTensor gives them, and the plainest optimizer.
COMMON = ("optim=sgd", "optim.lr=0.01", "data.standardize=none", "trainer.checkpoint_every=1000 epochs")
PREPARED = 4  # batches on the device for the step's rate


@dataclass
class Task:
    """A run of ours, and all that others need to do the same."""

    overrides: list[str]
    run: Run
    folder: Path  # IDX files as torchvision's FashionMNIST wants them
    initial: nn.Module
    batches: list[Batch]

    @property
    def device(self) -> torch.device:
        return self.run.engine.device

    @property
    def batch_size(self) -> int:
        return int(self.run.config.data.batch_size)

    @property
    def image_size(self) -> int:
        return int(self.run.config.data.image_size)

    @property
    def rate(self) -> float:
        return float(self.run.config.optim.lr)

    def model(self) -> nn.Module:
        """A network with the initial weights, in torch's default memory format."""
        return copy.deepcopy(self.initial).to(memory_format=torch.contiguous_format)

    @property
    def plain_batches(self) -> list[Batch]:
        """The prepared batches in torch's default memory format."""
        return [(images.contiguous(), labels) for images, labels in self.batches]

    @property
    def flops(self) -> int:
        """Floating-point operations of training on an image."""
        return train_flops(self.initial, input_shape=self.run.input_shape)

    def images(self, split: str) -> int:
        """Examples that an epoch of a split takes."""
        return self.run.batches[split].num_examples


def prepare(overrides: list[str], *, batches: int, evaluated: int, folder: Path) -> Task:
    """Compose and build a run of so many batches an epoch, and write its data for the others.

    Raises ConfigError where the data are not grey images of 28 pixels.
    """
    limits = (f"trainer.limit_train_batches={batches}", f"trainer.limit_val_batches={evaluated}")
    overrides = [*COMMON, *overrides, *limits, f"trainer.limit_test_batches={evaluated}"]
    config = compose(overrides).config
    examples = make(data, config.data).load()
    for part, named in (("train", "train"), ("test", "t10k")):
        write_idx(folder, named, examples[part].images, examples[part].labels)
    run = build(config)
    serving = iter(run.batches["train"].epoch(0))
    prepared = [next(serving) for _ in range(min(PREPARED, len(run.batches["train"])))]
    return Task(overrides, run, folder, copy.deepcopy(run.model), prepared)


def write_idx(folder: Path, part: str, images: Any, labels: Any) -> None:
    """Write a part's two files in MNIST's format, decoded, below FashionMNIST/raw."""
    raw = folder / "FashionMNIST" / "raw"
    pixels, answers = (each.numpy() if isinstance(each, Tensor) else np.asarray(each) for each in (images, labels))
    pixels = pixels.reshape(len(pixels), -1)
    if pixels.shape[1] != 28 * 28:
        raise ConfigError("bench compares on grey images of 28 pixels: fashion_mnist, mnist, kmnist or synthetic")
    raw.mkdir(parents=True, exist_ok=True)
    for kind, magic, sizes, content in (
        ("images-idx3", 2051, (len(pixels), 28, 28), pixels),
        ("labels-idx1", 2049, (len(pixels),), answers),
    ):
        header = np.array([magic, *sizes], dtype=">i4").tobytes()
        (raw / f"{part}-{kind}-ubyte").write_bytes(header + content.astype(np.uint8).tobytes())
