"""From a configuration to ready objects: the only reader of the config tree."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from dltrain import initializers, losses, metrics, models, schedules
from dltrain.build.beginning import begin
from dltrain.build.optimizer import make_optimizer
from dltrain.build.ranks import check_norms, check_ranks, check_work, divide, set_up, share
from dltrain.build.rehearsal import rehearse
from dltrain.build.supply import Supply
from dltrain.components import find, make, worded
from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.data.batches import Batches
from dltrain.data.dataset import cache_folder
from dltrain.data.facts import Facts, Served
from dltrain.data.preparation import Preparation
from dltrain.engine import Engine, GraphedEngine, Precision, Ranks, Strategy, cpu, fastest, searches, select, why_eager
from dltrain.engine.device import best_memory_format, compile_model
from dltrain.engine.precision import recurrent_layers

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass
class Run:
    """Everything a training run needs, ready to use."""

    config: DictConfig
    trainer: schema.Trainer
    facts: Facts
    served: Served
    model: nn.Module
    memory_format: torch.memory_format
    engine: Engine
    schedule: schedules.Schedule
    batches: dict[str, Batches]
    preparation: Preparation
    data_fingerprint: str
    initial_weights_sha256: str | None
    notes: list[str]

    @property
    def model_facts(self) -> dict[str, Any]:
        """What the model was told of the data."""
        return model_facts(self.served)


def build(config: DictConfig, *, restored: bool = False, trains: bool = True, ranks: Ranks | None = None) -> Run:
    """Check a composed configuration against the data's facts, then decode the data and make the objects.

    Weights that are to be `restored` will come from a checkpoint, and none of another run are read. Where nothing
    `trains`, what needs another device for that may be there. All `ranks` must come to it, each for its own.
    Raises ConfigError, DataError, DeviceError or RunError, each with one line for the user.
    """
    trainer = schema.Trainer(**config.trainer)
    device, ranks = select(config.device.name), ranks or Ranks()
    set_up(device, config.device, ranks)
    supply = Supply(config, trainer, ranks)
    served, schedule = supply.served, make(schedules, config.schedule)
    _check_validation(trainer, schedule, supply)
    _check_loss(config, served)
    model = make_model(config, served)
    check_norms(model, config, device, ranks, trains=trains)
    beginning, initial_weights_sha256 = begin(model, config, restored=restored)
    rehearse(model, served, microbatch=trainer.parts, batch_size=supply.batch_size)
    precision = Precision(_precision(config, device, supply, model), device)
    model, memory_format = _placed(model, config, device, precision)
    strategy, whole = divide(model, trainer.strategy, ranks)
    engine = _engine(config, trainer, model, schedule, precision, supply, strategy)
    batches, preparation = supply.load(device=device, memory_format=memory_format)
    return Run(
        config=config,
        trainer=trainer,
        facts=supply.facts,
        served=served,
        model=whole,
        memory_format=memory_format,
        engine=engine,
        schedule=schedule,
        batches=batches,
        preparation=preparation,
        data_fingerprint=_fingerprint(supply, ranks),
        initial_weights_sha256=initial_weights_sha256,
        notes=[*beginning, *_notes(config, trainer, engine, supply.facts)],
    )


def _placed(
    model: nn.Module, config: DictConfig, device: torch.device, precision: Precision
) -> tuple[nn.Module, torch.memory_format]:
    """The model on the device, arranged and computed as is fast there, and its memory format."""
    chosen = MEMORY_FORMATS.get(config.device.memory_format)
    memory_format = chosen or best_memory_format(model, device, precision=precision.name)
    fast = device.type == "cpu" and precision.name == fastest(device) == "bf16"
    if fast and config.device.compile == "off":
        cpu.suit(model)
    precision.keep_recurrent(model)
    return model.to(device=device, memory_format=memory_format), memory_format  # type: ignore[call-overload]


def _fingerprint(supply: Supply, ranks: Ranks) -> str:
    """That of the data as this machine has them, of which the first of its ranks makes sure."""
    first = ranks.neighbours[0]
    return ranks.each(lambda: supply.dataset.fingerprint() if ranks.rank == first else "")[first]


def _engine(
    config: DictConfig,
    trainer: schema.Trainer,
    model: nn.Module,
    schedule: schedules.Schedule,
    precision: Precision,
    supply: Supply,
    strategy: Strategy,
) -> Engine:
    """The engine that takes the run's steps."""
    ranks, held = strategy.ranks, strategy.held(model)
    optimizer = make_optimizer(config.optim, held, precision.name)
    _check_search(config.optim.name, optimizer, trainer, precision)
    check_ranks(config, optimizer, ranks)
    check_work(strategy, supply.num_served, batch_size=supply.batch_size)
    optimizer = share(config, optimizer, strategy, held, precision.name)
    served = supply.served
    graphed = precision.device_type == "cuda" and config.device.graphs and not why_eager(optimizer) and ranks.size == 1
    engine = (GraphedEngine if graphed else Engine)(
        model,
        optimizer,
        loss=make(losses, config.loss, **served.facts, **served.loss_facts),
        metrics={name: metrics.measure(name).sum for name in served.measures},
        shown={name: metrics.measure(name).shown for name in served.measures},
        schedule=_rate(config, trainer, schedule, supply.steps_per_epoch),
        precision=precision,
        penalty=worded("loss", lambda: losses.l2_penalty(held, l2=config.loss.l2, l2_on=config.loss.l2_on)),
        clip_norm=trainer.clip_norm,
        clip_value=trainer.clip_value,
        microbatch=trainer.parts or (-(-supply.batch_size // ranks.size) if trainer.accumulate > 1 else None),
        splits=trainer.microbatch == "auto",
        ema=trainer.ema,
        seed=config.seed,
        strategy=strategy,
    )
    compile_model(model, mode=config.device.compile, cache=cache_folder("inductor"))  # not the averaged copy
    return engine


def _rate(
    config: DictConfig, trainer: schema.Trainer, schedule: schedules.Schedule, steps_per_epoch: int
) -> Callable[[int], float]:
    """What multiplies the rate of a step."""
    warm = schedules.warmup(schedule, warmup=config.schedule.warmup)
    rate = warm if trainer.constant_rate is None else lambda *_: trainer.constant_rate
    return lambda step: rate(step, steps_per_epoch, steps_per_epoch * trainer.epochs)


def make_model(config: DictConfig, served: Served) -> nn.Module:
    """The model with its initial weights, which are a function of the seed alone."""
    torch.manual_seed(config.seed)
    model: nn.Module = make(models, config.model, **model_facts(served))
    generator = torch.Generator().manual_seed(config.seed)
    initializers.initialize(model, make(initializers, config.init), layers=config.init.layers, generator=generator)
    return model


def model_facts(served: Served) -> dict[str, Any]:
    """What a model may ask of the data."""
    return {**served.facts, "input_shape": list(served.input_shape), "num_outputs": served.output_shape[0]}


def _check_search(name: str, optimizer: torch.optim.Optimizer, trainer: schema.Trainer, precision: Precision) -> None:
    """Refuse what cannot be done to gradients that an optimizer computes anew within its step."""
    if searches(optimizer):
        settings = {f"trainer.{key}": getattr(trainer, key) for key in ("clip_norm", "clip_value")}
        scaled = {"device.precision": precision.name if precision.scaled else None}
        for key, value in {**settings, **scaled}.items():
            if value is not None:
                raise ConfigError(f"{key}={value}: optim.name={name} takes gradients anew within its step, as they are")


def _check_loss(config: DictConfig, served: Served) -> None:
    """Refuse a loss that passes over what the data say is to be minimized."""
    accepted = inspect.signature(find(losses, config.loss.name, "loss")).parameters
    if passed_over := [name for name in served.loss_facts if name not in accepted]:
        what = f"it does not look at the {' and '.join(passed_over)} of data={config.data.name}"
        raise ConfigError(f"loss={config.loss.name}: {what}; choose loss=objective")


def _check_validation(trainer: schema.Trainer, schedule: schedules.Schedule, supply: Supply) -> None:
    """Refuse what follows the validation split where there is none, or a number that it does not have."""
    if "accuracy" not in supply.served.measures:
        if trainer.monitor == "val_accuracy":
            raise ConfigError("trainer.monitor=val_accuracy: there is no accuracy without classes; choose val_loss")
        if isinstance(schedule, schedules.Plateau) and schedule.metric == "accuracy":
            raise ConfigError("schedule.metric=accuracy: there is no accuracy without classes; choose loss")
    follower = "schedule=plateau" if isinstance(schedule, schedules.Plateau) else trainer.early_stop and "early_stop"
    if follower and supply.facts.num_examples["val"] == 0:
        raise ConfigError(f"{follower} follows the validation split, and data.val_size=0 leaves none")


def _precision(config: DictConfig, device: torch.device, supply: Supply, model: nn.Module) -> str:
    """The chosen one, or the fastest of this device.

    Numbers to be met need more digits than bfloat16 has; what it does to recurrences has not been measured.
    """
    chosen = str(config.device.precision)
    if supply.served.dtype == torch.float64:
        if chosen != "auto" or device.type == "mps":
            raise ConfigError(f"data={config.data.name} is computed in float64: device=cpu device.precision=auto can")
        return "fp64"
    if chosen != "auto":
        return chosen
    return fastest(device) if supply.facts.num_classes and not recurrent_layers(model) else "fp32"


def _notes(config: DictConfig, trainer: schema.Trainer, engine: Engine, facts: Facts) -> list[str]:
    """What a person should know before the run: what could not be honoured, and how the splits are used."""
    precision = engine.precision
    alone = engine.ranks.size == 1
    why = why_eager(engine.optimizer) if alone else "ranks average gradients within the backward pass"
    eager = precision.device_type == "cuda" and config.device.graphs and why
    slow = precision.name == "bf16" and precision.device_type == "cpu" and fastest(torch.device("cpu")) != "bf16"
    kept = precision.lacks_recurrence and recurrent_layers(engine.model)
    capped = trainer.max_batch_size is not None and trainer.max_batch_size < config.data.batch_size
    watched = (
        "the test set is watched after every epoch, as the notes do: no held-out estimate, and of the last weights"
    )
    decays = any(group.get("weight_decay") for group in engine.optimizer.param_groups)
    undecayed = config.optim.get("weight_decay") and not decays
    undivided = trainer.strategy != "ddp" and alone
    squared = config.loss.name == "mse" and facts.num_classes > 0
    notes = (
        (undecayed, "optim.weight_decay decays nothing: the model has no weights, only biases and norms"),
        (squared, "loss=mse with classes: their one-hot vectors are the targets; loss=cross_entropy is usual"),
        (undivided, f"trainer.strategy={trainer.strategy}: there is one rank, which holds all"),
        (eager, f"no CUDA graph: {eager}"),
        (kept, "device.precision=bf16: recurrent layers are computed in fp32, as autocast would have them in fp16"),
        (slow, "this CPU is not fast at bf16: fp32 takes less time"),
        (capped, f"trainer.max_batch_size: batches of {trainer.max_batch_size}, not {config.data.batch_size}"),
        (trainer.watch_test, watched),
        (config.data.val_size == "train", "validation is on the training examples: no held-out estimate"),
        (facts.num_examples["val"] == 0, "there is no validation split: the last weights count"),
    )
    return [*facts.notes, *(words for holds, words in notes if holds)]
