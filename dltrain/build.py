"""From a configuration to ready objects: the only reader of the config tree."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from dltrain import data, initializers, losses, metrics, models, optim, schedules
from dltrain.components import find, make, rehearse, worded
from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.data import augment
from dltrain.data.batches import Batches, batch_bounds
from dltrain.data.dataset import Dataset, Facts, cache_folder
from dltrain.data.splits import split_examples, split_facts
from dltrain.data.statistics import mean_and_deviation
from dltrain.engine import Engine, GraphedEngine, Precision, fastest, select, why_eager
from dltrain.engine.device import best_memory_format, compile_model, configure, free_memory

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Run:
    """Everything a training run needs, ready to use."""

    config: DictConfig
    trainer: schema.Trainer
    facts: Facts
    input_shape: tuple[int, ...]
    model: nn.Module
    engine: Engine
    schedule: schedules.Schedule
    batches: dict[str, Batches]
    preprocessing: dict[str, Any]
    data_fingerprint: str
    notes: list[str]

    @property
    def model_facts(self) -> dict[str, int]:
        """What the model was told of the data."""
        return model_facts(self.config, self.facts)


def build(config: DictConfig) -> Run:
    """Check a composed configuration against the data's facts, then decode the data and make the objects.

    Raises ConfigError, DataError or DeviceError, each with one line for the user.
    """
    trainer = schema.Trainer(**config.trainer)
    device = select(config.device.name)
    configure(device, **{key: config.device[key] for key in ("threads", "tf32", "deterministic")})
    precision = Precision(fastest(device) if config.device.precision == "auto" else config.device.precision, device)
    dataset = make(data, config.data)
    facts = _split_facts(config.data, dataset)
    batch_size = _batch_size(config.data.batch_size, trainer, facts)
    steps_per_epoch = _steps_per_epoch(trainer, facts, batch_size)

    image_shape = (facts.in_channels, config.data.image_size, config.data.image_size)
    model = make_model(config, facts)
    rehearse(model, image_shape, microbatch=trainer.parts, batch_size=batch_size, num_classes=facts.num_classes)
    best = best_memory_format(model, device, precision=precision.name)
    memory_format = MEMORY_FORMATS.get(config.device.memory_format, best)
    model = model.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    placed = {"device": device, "memory_format": memory_format, "workers": _workers(config.data, facts, device)}
    schedule = make(schedules, config.schedule)
    _check_validation(trainer, schedule, facts)
    engine = _engine(config, trainer, model, schedule, precision, batch_size, steps_per_epoch)
    augmentation = make(augment, config.augment, num_classes=facts.num_classes)
    batches, preprocessing = _batches(config, trainer, dataset, batch_size, steps_per_epoch, augmentation, placed)
    assert len(batches["train"]) == steps_per_epoch
    return Run(
        config=config,
        trainer=trainer,
        facts=facts,
        input_shape=image_shape,
        model=model,
        engine=engine,
        schedule=schedule,
        batches=batches,
        preprocessing=preprocessing,
        data_fingerprint=dataset.fingerprint(),
        notes=_notes(config, trainer, engine, facts),
    )


def _engine(
    config: DictConfig,
    trainer: schema.Trainer,
    model: nn.Module,
    schedule: schedules.Schedule,
    precision: Precision,
    batch_size: int,
    steps_per_epoch: int,
) -> Engine:
    """The engine that takes the run's steps."""
    warm = schedules.warmup(schedule, warmup=config.schedule.warmup)
    rate = warm if trainer.constant_rate is None else lambda *_: trainer.constant_rate
    optimizer = make_optimizer(config.optim, model)
    graphed = precision.device_type == "cuda" and config.device.graphs and not why_eager(optimizer)
    engine = (GraphedEngine if graphed else Engine)(
        model,
        optimizer,
        loss=make(losses, config.loss),
        metrics={"accuracy": metrics.correct},
        schedule=lambda step: rate(step, steps_per_epoch, steps_per_epoch * trainer.epochs),
        precision=precision,
        penalty=losses.l2_penalty(model, l2=config.loss.l2, l2_on=config.loss.l2_on),
        clip_norm=trainer.clip_norm,
        clip_value=trainer.clip_value,
        microbatch=trainer.parts or (batch_size if trainer.accumulate > 1 else None),
        splits=trainer.microbatch == "auto",
        ema=trainer.ema,
        seed=config.seed,
    )
    compile_model(model, mode=config.device.compile, cache=cache_folder("inductor"))  # not the averaged copy
    return engine


def make_model(config: DictConfig, facts: Facts) -> nn.Module:
    """The model with its initial weights, which are a function of the seed alone."""
    torch.manual_seed(config.seed)
    model: nn.Module = make(models, config.model, **model_facts(config, facts))
    generator = torch.Generator().manual_seed(config.seed)
    initializers.initialize(model, make(initializers, config.init), layers=config.init.layers, generator=generator)
    return model


def make_optimizer(node: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over the model's parameters in groups by role, fused where the device can."""
    decay = {key: node[key] for key in ("weight_decay", "decay_bias_and_norm") if key in node}
    groups = optim.parameter_groups(model, **decay)
    fused = optim.fused_keywords(find(optim, node.name, "optim"), device=next(model.parameters()).device)
    optimizer: torch.optim.Optimizer = make(optim, node, params=groups, **fused)
    return optimizer


def model_facts(config: DictConfig, facts: Facts) -> dict[str, int]:
    """What a model may ask of the data."""
    sizes = {"in_channels": facts.in_channels, "num_classes": facts.num_classes}
    return {**sizes, "image_size": config.data.image_size}


def _split_keywords(node: DictConfig) -> dict[str, Any]:
    classes = None if node.classes is None else list(node.classes)
    return {"val_size": node.val_size, "train_size": node.train_size, "classes": classes}


def _split_facts(node: DictConfig, dataset: Dataset) -> Facts:
    """The facts of the parts that train, validate and test."""
    facts = dataset.facts()
    labels = None if node.classes is None else {part: dataset.labels(part) for part in facts.num_examples}
    split: Facts = worded(f"data={node.name}", partial(split_facts, facts, labels, **_split_keywords(node)))
    return split


def _steps_per_epoch(trainer: schema.Trainer, facts: Facts, batch_size: int) -> int:
    """Optimizer steps an epoch; the limit counts batches, of which `accumulate` make a step."""
    limit = trainer.limit_train_batches
    if limit and trainer.overfit_batches:
        return -(-limit // trainer.accumulate)
    examples = min(facts.num_examples["train"], (limit or facts.num_examples["train"]) * batch_size)
    return len(batch_bounds(examples, batch_size=batch_size * trainer.accumulate))


def _check_validation(trainer: schema.Trainer, schedule: schedules.Schedule, facts: Facts) -> None:
    """Refuse what follows the validation split where there is none."""
    follower = "schedule=plateau" if isinstance(schedule, schedules.Plateau) else trainer.early_stop and "early_stop"
    if follower and facts.num_examples["val"] == 0:
        raise ConfigError(f"{follower} follows the validation split, and data.val_size=0 leaves none")


def _batch_size(wanted: int, trainer: schema.Trainer, facts: Facts) -> int:
    available = facts.num_examples["train"]
    if wanted > available:
        raise ConfigError(f"data.batch_size={wanted}: there are {available} training examples")
    return min(wanted, trainer.max_batch_size or wanted)


def _workers(node: DictConfig, facts: Facts, device: torch.device) -> int | None:
    """How many processes stream the images that do not fit on the device; None where they fit."""
    limit = free_memory(device) // 2 if node.resident_limit is None else node.resident_limit
    return None if facts.num_bytes <= limit else node.workers


def _batches(
    config: DictConfig,
    trainer: schema.Trainer,
    dataset: Dataset,
    batch_size: int,
    steps_per_epoch: int,
    augmentation: augment.Augment | None,
    placed: dict[str, Any],
) -> tuple[dict[str, Batches], dict[str, Any]]:
    """Decode the data into batches of every split that has examples, and how images are made into inputs."""
    examples = split_examples(dataset.load(), **_split_keywords(config.data), seed=config.seed)
    mean, deviation = mean_and_deviation(examples["train"].images, standardize=config.data.standardize)
    how = {"image_size": config.data.image_size, "mean": mean, "deviation": deviation}
    served: dict[str, dict[str, Any]] = {
        split: {"batch_size": batch_size, "limit": getattr(trainer, f"limit_{split}_batches")} for split in examples
    }
    served["train"] = {
        "batch_size": batch_size * trainer.accumulate,
        "shuffle": config.data.shuffle,
        "augment": augmentation,
        "limit": steps_per_epoch,
        "most_examples": None if trainer.overfit_batches else (trainer.limit_train_batches or 0) * batch_size,
        "overfit": trainer.overfit_batches,
    }
    batches = {
        split: Batches(part.images, part.labels, **how, **served[split], seed=config.seed, **placed)
        for split, part in examples.items()
        if len(part.labels)
    }
    return batches, {**how, "mean": mean.tolist(), "deviation": deviation.tolist()}


def _notes(config: DictConfig, trainer: schema.Trainer, engine: Engine, facts: Facts) -> list[str]:
    """What a person should know before the run: what could not be honoured, and how the splits are used."""
    precision = engine.precision
    eager = precision.device_type == "cuda" and config.device.graphs and why_eager(engine.optimizer)
    slow = precision.name == "bf16" and precision.device_type == "cpu" and fastest(torch.device("cpu")) != "bf16"
    capped = trainer.max_batch_size is not None and trainer.max_batch_size < config.data.batch_size
    watched = (
        "the test set is watched after every epoch, as the notes do: no held-out estimate, and of the last weights"
    )
    notes = (
        (eager, f"no CUDA graph: {eager}"),
        (slow, "this CPU is not fast at bf16: fp32 takes less time"),
        (capped, f"trainer.max_batch_size: batches of {trainer.max_batch_size}, not {config.data.batch_size}"),
        (trainer.watch_test, watched),
        (facts.num_examples["val"] == 0, "there is no validation split: the last weights are tested"),
    )
    return [words for holds, words in notes if holds]
