"""The data of a run: what is known of them first, then the batches."""

from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig

from dltrain import data
from dltrain.components import make, worded
from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.data import augment
from dltrain.data.batches import Batches, batch_bounds
from dltrain.data.dataset import Examples
from dltrain.data.facts import Facts, ImageFacts
from dltrain.data.preparation import Preparation
from dltrain.data.splits import split_examples, split_facts
from dltrain.data.stored import are_decoded
from dltrain.engine import Ranks
from dltrain.engine.device import free_memory


class Supply:
    """A data set, split and augmented as a configuration says; nothing is decoded until `load`.

    Raises ConfigError for what the data cannot give.
    """

    def __init__(self, config: DictConfig, trainer: schema.Trainer, ranks: Ranks | None = None) -> None:
        self.config, self.trainer, self.ranks = config, trainer, ranks or Ranks()
        self.dataset = make(data, config.data)
        self.dataset.divide(self.ranks)
        self.facts = self._split_facts()
        self.served = self.facts.served(config.data)
        self.batch_size = self._batch_size()
        self.augmentation = self._augmentation()

    @property
    def num_served(self) -> dict[str, int]:
        """Examples of each split that an epoch takes, by its limit of batches."""
        limits = {split: getattr(self.trainer, f"limit_{split}_batches") for split in self.facts.num_examples}
        return {
            split: min(count, (limits[split] or count) * self.batch_size)
            for split, count in self.facts.num_examples.items()
        }

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps; the limit counts batches, of which `accumulate` make a step."""
        limit, count = self.trainer.limit_train_batches, self.facts.num_examples["train"]
        if limit and self.trainer.overfit_batches:
            return -(-limit // self.trainer.accumulate)
        examples = min(count, (limit or count) * self.batch_size)
        return len(batch_bounds(examples, batch_size=self.batch_size * self.trainer.accumulate))

    def load(
        self, *, device: torch.device, memory_format: torch.memory_format
    ) -> tuple[dict[str, Batches], Preparation]:
        """Decode the data into batches of every split that has examples, and how these are made of what is stored."""
        how: dict[str, Any] = {"contiguous": self.facts.contiguous, "seed": self.config.seed}
        examples = split_examples(self.dataset.load(), **self._split_keywords(), **how)
        settings = {**self.config.data, "memory_format": memory_format, "team": self.ranks}
        preparation = self.facts.preparation(examples["train"], settings)
        how = {"prepare": preparation, "seed": self.config.seed, "device": device}
        how |= self._placement(device, examples["train"])
        batches = {split: self._batches(split, part, how) for split, part in examples.items() if len(part.targets)}
        assert len(batches["train"]) == self.steps_per_epoch
        return batches, preparation

    def _batches(self, split: str, part: Examples, how: dict[str, Any]) -> Batches:
        trainer = self.trainer
        if split != "train":
            limit = getattr(trainer, f"limit_{split}_batches")
            how = {**how, "batch_size": self.batch_size, "evaluated": True, "sharded": False}
            return Batches(part.inputs, part.targets, **how, limit=limit)
        most_examples = None if trainer.overfit_batches else (trainer.limit_train_batches or 0) * self.batch_size
        batch_size = self.batch_size * trainer.accumulate
        return Batches(
            part.inputs,
            part.targets,
            **how,
            batch_size=batch_size,
            sequence=self.facts.sequence(len(part.targets), batch_size=batch_size),
            shuffle=self.config.data.shuffle,
            augment=self.augmentation,
            limit=self.steps_per_epoch,
            most_examples=most_examples,
            overfit=trainer.overfit_batches,
        )

    def _split_keywords(self) -> dict[str, Any]:
        node = self.config.data
        classes = None if node.classes is None else list(node.classes)
        return {"val_size": node.val_size, "train_size": node.train_size, "classes": classes}

    def _split_facts(self) -> Facts:
        """The facts of the parts that train, validate and test."""
        facts, node = self.dataset.facts(), self.config.data
        counted = node.classes is not None and facts.num_classes
        labels = {part: self.dataset.labels(part) for part in facts.num_examples} if counted else None
        split: Facts = worded(f"data={node.name}", partial(split_facts, facts, labels, **self._split_keywords()))
        return split

    def _batch_size(self) -> int:
        wanted: int = self.config.data.batch_size
        available = self.facts.num_examples["train"]
        if wanted > available:
            raise ConfigError(f"data.batch_size={wanted}: there are {available} training examples; choose that or less")
        return min(wanted, self.trainer.max_batch_size or wanted)

    def _augmentation(self) -> augment.Augment | None:
        node = self.config.augment
        made: augment.Augment | None = make(augment, node, num_classes=self.facts.num_classes)
        if made is not None and not isinstance(self.facts, ImageFacts):
            raise ConfigError(f"augment={node.name}: it changes images, and data={self.config.data.name} has none")
        return made or self.facts.disturbance

    def _placement(self, device: torch.device, train: Examples) -> dict[str, Any]:
        """Where the inputs are kept: on the device, a part of them on that of each rank, or streamed by processes."""
        size, limit = self.ranks.size, self._limit(device)
        fits = -(-self.facts.num_bytes // size) <= limit
        apart = size > 1 and (self.facts.num_bytes > limit or not are_decoded(train.inputs))
        return {
            "ranks": self.ranks if size > 1 else None,
            "workers": None if fits else self.config.data.workers,
            "sharded": fits and apart,
        }

    def _limit(self, device: torch.device) -> int:
        """Bytes that a rank may keep on its device, the same for all."""
        if self.config.data.resident_limit is not None:
            return int(self.config.data.resident_limit)
        on_it = 1 if device.type == "cuda" else len(self.ranks.neighbours)
        (most,) = self.ranks.highest([-(free_memory(device) // (2 * on_it))])
        return -most
