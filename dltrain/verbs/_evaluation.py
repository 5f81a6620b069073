"""A trained model over a split of its data: what comes of every example, and what that is worth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from dltrain.build import Run, build
from dltrain.config import stored
from dltrain.config.errors import ConfigError
from dltrain.config.plain import settings
from dltrain.data.batches import Batches
from dltrain.data.preparation import Pixels, restored
from dltrain.run import checkpoint
from dltrain.run.folder import read_json
from dltrain.run.weights import chosen, evaluated
from dltrain.train import Row
from dltrain.verbs._decisions import Decisions
from dltrain.verbs._interruptible import Interruptible


@dataclass(frozen=True)
class Outcome:
    """What a row would say of a split, and by example: losses (N,), targets and outputs (N, ...).

    Outputs are probabilities of classes, numbers in the unit of the targets or, of texts, the share of right tokens.
    """

    row: Row
    losses: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray

    @property
    def is_finite(self) -> bool:
        """Whether no number of it is NaN or infinite."""
        return bool(np.isfinite(self.losses).all() and np.isfinite(self.outputs).all())


@dataclass(frozen=True)
class Trial:
    """A run ready to be evaluated on a split, with the weights of a step."""

    run: Run
    batches: Batches
    split: str
    step: int
    chosen: str  # best, last (also where nothing told which are best), or the step
    averaged: bool
    own_fingerprint: str | None

    @property
    def own_data(self) -> bool:
        """Whether the data are those that the run was trained with, as far as it is known."""
        return self.own_fingerprint in (None, self.run.data_fingerprint)


def prepare(folder: Path, *, split: str, which: str, data: list[str], device: str | None) -> Trial:
    """The data of a run as its configuration splits them, or others, and the weights of a checkpoint.

    Inputs are prepared by the statistics that the weights were trained with. Raises ConfigError, RunError, DataError.
    """
    path = chosen(folder, which)
    config = stored.read_with_data(folder / "config.yaml", data, more=[f"device.name={device}"] if device else [])
    if config.data.name == "function":
        raise ConfigError("data=function: every step is an evaluation there, and metrics.jsonl holds them")
    run = build(config, restored=True, trains=False)
    tensors, state = checkpoint.load(path)
    _check_fits(run, state)
    if split not in run.batches:
        raise ConfigError(f"--split {split}: data={config.data.name} has no such part here: {', '.join(run.batches)}")
    run.engine.evaluated.load_state_dict(evaluated(tensors))
    batches = run.batches[split].in_order()
    batches.prepare = restored(state["preprocessing"])
    if isinstance(batches.prepare, Pixels):
        batches.prepare.memory_format = run.memory_format
    own = (read_json(folder / "environment.json") or {}).get("data_fingerprint")
    told = "last" if which == "best" and state["best"] is None else which
    trial = Trial(run, batches, split, state["step"], told, "ema" in tensors, own)
    if trial.own_data:
        _check_split(config, settings(folder / "config.yaml"))
    return trial


def _check_split(config: DictConfig, own: dict[str, Any]) -> None:
    """Refuse to draw another split of the run's data, whose val would hold examples that have trained."""
    for key in ("val_size", "train_size"):
        if config.data[key] != own[f"data.{key}"]:
            raise ConfigError(
                f"--data data.{key}={config.data[key]}: the run has split its data with {own[f'data.{key}']}"
            )


def _check_fits(run: Run, state: dict[str, Any]) -> None:
    """Refuse data that the model was not made for."""
    for name, own, these in (
        ("classes", state["class_names"], list(run.facts.class_names)),
        ("facts", state["model_facts"], run.model_facts),
    ):
        if own != these:
            told = " and not ".join(_clipped(each) for each in (own, these))
            raise ConfigError(f"data={run.config.data.name}: the run has learned the {name} {told}")


def _clipped(value: Any, most: int = 100) -> str:
    text = ", ".join(value) if isinstance(value, list) else ", ".join(f"{k}={v}" for k, v in value.items())
    return text if len(text) <= most else f"{text[:most]}..."


def score(trial: Trial, decisions: Decisions | None = None) -> Outcome:
    """Run the model over every example. Raises Interrupted once a signal is received."""
    engine, prepare, facts = trial.run.engine, trial.batches.prepare, trial.run.facts
    of_texts = bool(facts.class_names) and not facts.num_classes
    losses: list[float] = []
    parts: list[tuple[Tensor, Tensor]] = []
    with engine.evaluating() as totals:
        for inputs, targets in Interruptible(trial.batches, decisions or Decisions(engine.ranks)).epoch(0):
            logits = engine.score((inputs, targets), totals).cpu()
            logits, targets = logits.to(torch.promote_types(logits.dtype, torch.float32)), targets.cpu()
            pairs = zip(logits.split(1), targets.split(1), strict=True)
            losses += [float(engine.loss(*pair)) for pair in pairs]
            if of_texts:
                parts.append(((logits.argmax(1) == targets).double().mean(1), targets[:, :0]))
            elif facts.num_classes:
                parts.append((logits.softmax(1), targets))
            else:
                parts.append((prepare.outputs(logits), prepare.outputs(targets)))
        row = totals.read()
    del row["images_per_second"]
    every = engine.ranks.gather((losses, parts))
    losses = [loss for own, _ in every for loss in own]
    parts = [part for _, own in every for part in own]
    outputs, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    return Outcome(row, np.array(losses), targets.numpy(), outputs.numpy())
