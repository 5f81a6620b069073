"""One piece of work for every contestant: the same network, weights, batches and optimizer."""

import copy
import math
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltrain import data
from dltrain.build import Run, build, make_model
from dltrain.build.beginning import begin
from dltrain.components import make
from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container
from dltrain.engine.step import Batch
from dltrain.models.summary import parameter_count, summarize

# Pixels from 0 to 1, as torchvision's ToTensor gives them, and the plainest optimizer.
# All images that are not tested on are trained on, so that an epoch and its evaluation are those of the course.
COMMON = (
    "optim=sgd",
    "optim.lr=0.01",
    "data.standardize=none",
    "data.val_size=0",
    "trainer.checkpoint_every=1000 epochs",
)
PREPARED = 4  # batches on the device for the step's rate


@dataclass(kw_only=True)
class Work:
    """What everyone does, plain enough to be sent to another process: its modules and tensors are on the CPU."""

    name: str
    settings: dict[str, Any]  # of the model
    device: torch.device
    image_size: int
    batch_size: int
    rate: float
    folder: Path  # IDX files as torchvision's FashionMNIST wants them
    examples: dict[str, int]  # that an epoch of a split takes
    initial: nn.Module
    batches: list[Batch]

    def model(self) -> nn.Module:
        """A network with the initial weights, on the device, in torch's default memory format."""
        return copy.deepcopy(self.initial).to(self.device)

    @cached_property
    def plain_batches(self) -> list[Batch]:
        """The prepared batches on the device, in torch's default memory format."""
        return [(images.to(self.device), labels.to(self.device)) for images, labels in self.batches]


@dataclass(kw_only=True)
class Task(Work):
    """A run of ours, and all that others need to do the same."""

    overrides: list[str]
    run: Run

    @property
    def work(self) -> Work:
        """What others need of it."""
        return Work(**{each.name: getattr(self, each.name) for each in fields(Work)})

    @property
    def precision(self) -> str:
        return self.run.engine.precision.name

    def run_in(self, precision: str) -> Run:
        """The same run in another precision."""
        return build(compose([*self.overrides, f"device.precision={precision}"]).config)

    @property
    def costs(self) -> dict[str, int]:
        """What a step takes at least: operations and layers' outputs per image, and the parameters."""
        summary = summarize(self.initial, self.run.served.blank(2))
        return {
            "train_flops_per_image": summary.train_flops,
            "outputs_per_image": sum(math.prod(layer.output_shape) for layer in summary.layers),
            "parameters": parameter_count(self.initial),
        }


def prepare(overrides: list[str], *, batches: int | None, evaluated: int | None, folder: Path) -> Task:
    """Compose and build a run and write its data for the others; so many batches an epoch, None being all.

    Overrides count more. Raises ConfigError where the data are not grey images of 28 pixels.
    """
    limits = {"train": batches, "val": evaluated, "test": evaluated}
    words = [f"trainer.limit_{split}_batches={'null' if most is None else most}" for split, most in limits.items()]
    overrides = [*COMMON, *words, *overrides]
    config = compose(overrides).config
    examples = make(data, config.data).load()
    for part, named in (("train", "train"), ("test", "t10k")):
        write_idx(folder, named, examples[part].inputs, examples[part].targets)
    run = build(config)
    initial = make_model(config, run.served)
    begin(initial, config, restored=False)
    return Task(
        name=config.model.name,
        settings={key: value for key, value in container(config.model).items() if key != "name" and value is not None},
        device=run.engine.device,
        image_size=config.data.image_size,
        batch_size=config.data.batch_size,
        rate=config.optim.lr,
        folder=folder,
        examples={split: batches.num_examples for split, batches in run.batches.items()},
        initial=initial,
        batches=[(images.cpu().contiguous(), labels.cpu()) for images, labels in first_batches(run)],
        overrides=overrides,
        run=run,
    )


def first_batches(run: Run) -> list[Batch]:
    """The batches on which steps are measured, which are the same in every precision."""
    return list(islice(run.batches["train"].epoch(0), PREPARED))


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
