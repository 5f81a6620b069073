"""The keys that belong to a group and not to one callable: their types and ranges. Their values stand in `conf/`."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from dltrain.config.ranges import OWN, Count, Form, Interval, NotNegative, Positive, Range, RunName, Steps


@dataclass(frozen=True)
class Root:
    """The keys of no group."""

    name: RunName | None
    seed: Annotated[int, Range(minimum=0, maximum=2**31 - 1)]
    outputs_dir: str


@dataclass(frozen=True)
class Model:
    """What any network can begin with."""

    weights: str | None


@dataclass(frozen=True)
class Optim:
    """`lr` and `weight_decay` are an optimizer's own; their ranges are checked here, early."""

    lr: Positive
    weight_decay: NotNegative
    decay_bias_and_norm: bool


@dataclass(frozen=True)
class Schedule:
    """What all schedules share."""

    warmup: Annotated[float, Steps()]


@dataclass(frozen=True)
class Loss:
    """L2 regularization inside the loss."""

    l2: NotNegative
    l2_on: Literal["all", "last"]


@dataclass(frozen=True)
class Init:
    """Which layers an initializer fills, and which stay as they are in training."""

    layers: Literal["linear", "conv", "all"]
    freeze: list[str]


@dataclass(frozen=True)
class Data:
    """How examples are chosen, split, resized and batched, and where they are kept."""

    batch_size: Count
    image_size: Annotated[int, Range(minimum=28, maximum=1024)]
    val_size: Annotated[int, Range(minimum=0)] | Literal["train"]
    train_size: Count | None
    classes: list[int] | None
    standardize: Literal["channel", "feature", "none"]
    shuffle: bool
    monitor: Literal["val_accuracy", "val_loss"]
    resident_limit: Annotated[int, Range(minimum=0)] | None
    workers: Annotated[int, Range(minimum=0)]
    root: str | None


@dataclass(frozen=True)
class Device:
    """Where and how to compute."""

    name: Literal["auto", "cpu", "cuda", "mps"]
    count: Annotated[int, Range(minimum=1, maximum=1024)]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    memory_format: Literal["auto", "contiguous", "channels_last"]
    threads: Annotated[int, Range(minimum=1, maximum=1024)] | None
    tf32: bool
    deterministic: bool
    graphs: bool
    compile: Literal["off", "default", "max-autotune"]


@dataclass(frozen=True)
class Trainer:
    """How long to train, what to watch and what to keep."""

    epochs: Count
    limit_train_batches: Count | None
    limit_val_batches: Count | None
    limit_test_batches: Count | None
    overfit_batches: Count | None
    max_batch_size: Count | None
    log_every: Count | Literal["auto"]
    clip_norm: Positive | None
    clip_value: Positive | None
    ema: Annotated[float, Range(above=0, below=1)] | None
    accumulate: Count
    microbatch: Count | Literal["auto"] | None
    constant_rate: Positive | None
    monitor: Literal["val_accuracy", "val_loss"]
    early_stop: Count | None
    eval_every_examples: Count | None
    eval_at_start: bool
    watch_test: bool
    strategy: Literal["ddp", "zero1", "fsdp2"]
    check_all: bool
    must_learn: bool
    checkpoint_every: Interval
    keep: Annotated[int, Range(minimum=2)]
    keep_every: Count | None
    max_save_failures: Count
    grace_seconds: Positive
    collective_timeout: Positive
    on_divergence: Literal["stop", "skip", "rollback"]
    max_skipped: Count
    max_rollbacks: Count

    def interval(self, steps: int) -> int:
        """Steps between two train rows in epochs of so many steps: 50, or fewer where those would be few rows."""
        return max(1, min(50, steps // 10)) if isinstance(self.log_every, str) else self.log_every

    @property
    def parts(self) -> int | None:
        """The examples at a time where that is not left to what fits."""
        return None if isinstance(self.microbatch, str) else self.microbatch


@dataclass(frozen=True)
class Sweep:
    """How the jobs of a sweep are found, run and kept; optuna's keys are for `search=optuna`."""

    jobs: Count | Literal["auto"]
    jobs_per_gpu: Count
    timeout: Positive | None
    keep: Literal["weights", "all"]
    resume: str | None
    launcher: Literal["local", "submitit_slurm", "submitit_local"]
    search: Literal["grid", "optuna"]
    trials: Count
    sampler: Literal["tpe", "random", "grid"]
    pruner: Literal["none", "median", "asha"]
    storage: str | None
    study: RunName | None


@dataclass(frozen=True)
class Slurm:
    """What a job asks of the cluster."""

    partition: str | None
    account: str | None
    minutes: Count
    cpus: Count
    gpus: Annotated[int, Range(minimum=0)]
    memory_gb: Count
    at_once: Count


GROUPS: dict[str, type] = {
    "": Root,
    **{each.__name__.lower(): each for each in (Model, Optim, Schedule, Loss, Init, Data, Device, Trainer, Sweep)},
    "sweep.slurm": Slurm,
}
OF_OPTIONS = {"optim.lr", "optim.weight_decay", "data.root", "device.name"}  # keys here that some options do without
COMPONENTS = {"model", "optim", "schedule", "loss", "data", "init", "augment", "logger"}
SCALARS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    NoneType: (NoneType, "null"),
}


@cache
def keys(group: str) -> list[str]:
    """The group's keys that stand in a dataclass here."""
    return [field.name for field in fields(GROUPS[group])] if group in GROUPS else []


@cache
def _hints(group: str) -> dict[str, Any]:
    return get_type_hints(GROUPS[group], include_extras=True)


def offered(key: str) -> bool:
    """Whether a dotted key may stand in a YAML file: a component's are its callable's to judge, others stand here."""
    group, _, name = key.rpartition(".")
    return key.partition(".")[0] in COMPONENTS or name in keys(group)


def refusal(key: str, value: Any, example: Any) -> str | None:
    """Why a value cannot stand at a dotted key; `example` is what the YAML files have there."""
    group, _, name = key.rpartition(".")
    if name in keys(group):
        return misfit(value, _hints(group)[name])
    if value is None and name != "name":
        return None
    return misfit(value, OWN.get(key, str if name == "name" else _hint(example)))


def _hint(example: Any) -> Any:
    """The type that a YAML value stands for."""
    if isinstance(example, list):
        return list[_hint(example[0]) if example else Any]  # type: ignore[misc]
    return Any if example is None else type(example)


def misfit(value: Any, hint: Any) -> str | None:
    """Why a value is not of a type, or out of its range; a type that YAML has no values of takes any."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        refusals = [misfit(value, each) for each in arguments]
        return None if None in refusals else refusals[0]
    if kind is Annotated:
        words = misfit(value, arguments[0])
        return (
            f"{words}: {arguments[1].words}"
            if words and isinstance(arguments[1], Form)
            else words or arguments[1].refusal(value)
        )
    if kind is Literal:
        return None if value in arguments else f"must be one of {', '.join(arguments)}"
    if kind in (list, tuple, Sequence):
        return _misfit_of_list(value, kind, arguments)
    if hint is float and isinstance(value, float) and not isfinite(value):
        return "must be finite"
    if hint not in SCALARS:
        return None
    accepted, words = SCALARS[hint]
    fits = isinstance(value, accepted) and (hint is bool or not isinstance(value, bool))
    return None if fits else f"must be {words}"


def _misfit_of_list(value: Any, kind: Any, arguments: tuple[Any, ...]) -> str | None:
    if not isinstance(value, list):
        return "must be a list, such as [1,2]"
    if kind is tuple and Ellipsis not in arguments and len(value) != len(arguments):
        return f"must be a list of {len(arguments)}"
    return next((words for each in value if (words := misfit(each, arguments[0]))), None)
