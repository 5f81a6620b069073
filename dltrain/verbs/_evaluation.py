"""A trained model over a split of its data: what comes of every example, and what that is worth."""

from collections.abc import Iterator
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
from dltrain.data.facts import ImageFacts
from dltrain.data.pictures import as_png
from dltrain.data.preparation import Pixels, restored
from dltrain.evaluation import (
    TOP,
    calibration,
    classification,
    confusion_matrix,
    of_classes,
    regression,
    worst_mistakes,
)
from dltrain.run import checkpoint
from dltrain.run.folder import RunError, read_json
from dltrain.run.weights import chosen, evaluated
from dltrain.train import Row

NOT_FINITE = 65
MOST_MISTAKES, MOST_COLUMNS = 24, 20
Content = dict[str, Any]
Cells = list[Any]


@dataclass(frozen=True)
class Outcome:
    """What a row would say of a split, and by example: losses (N,), targets and outputs (N, ...).

    Outputs are probabilities of classes, numbers in the unit of the targets or, of texts, the share of right tokens.
    """

    row: Row
    losses: np.ndarray
    targets: np.ndarray
    outputs: np.ndarray


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
    run = build(config, restored=True)
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


def score(trial: Trial) -> Outcome:
    """Run the model over every example. Raises RunError (65) where what comes of one is not finite."""
    engine, prepare, facts = trial.run.engine, trial.batches.prepare, trial.run.facts
    of_texts = bool(facts.class_names) and not facts.num_classes
    losses: list[float] = []
    parts: list[tuple[Tensor, Tensor]] = []
    with engine.evaluating() as totals:
        for inputs, targets in trial.batches.epoch(0):
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
    outputs, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    outcome = Outcome(row, np.array(losses), targets.numpy(), outputs.numpy())
    if not (np.isfinite(outcome.losses).all() and np.isfinite(outcome.outputs).all()):
        raise RunError(f"the weights of step {trial.step} lead to outputs that are not finite", exit_code=NOT_FINITE)
    return outcome


def content(trial: Trial, outcome: Outcome) -> Content:
    """What evaluation-SPLIT.json says of an outcome."""
    facts = trial.run.facts
    if facts.num_classes:
        return _content_of_classes(trial, outcome)
    without = "top-k, balanced accuracy, precision, recall, F1, calibration, confusion matrix and worst mistakes"
    if facts.class_names:
        right = {"token_accuracy": float(outcome.outputs.mean())}
        return {"metrics": {**outcome.row, **right}, "left_out": f"{without}: a window belongs to no class"}
    numbers = regression(outcome.outputs, outcome.targets)
    return {"metrics": {**outcome.row, **numbers}, "left_out": f"{without}: there are no classes"}


def _content_of_classes(trial: Trial, outcome: Outcome) -> Content:
    names, probabilities, targets = trial.run.facts.class_names, outcome.outputs, outcome.targets
    predictions = probabilities.argmax(1)
    confusion = confusion_matrix(targets, predictions, num_classes=len(names))
    places = worst_mistakes(predictions, targets, outcome.losses, most=MOST_MISTAKES)
    images = _thumbnails(trial, places)
    worst = [
        {
            "index": int(place),
            "target": int(targets[place]),
            "prediction": int(predictions[place]),
            "probability": float(probabilities[place].max()),
            "loss": float(outcome.losses[place]),
            "image": image,
        }
        for place, image in zip(places, images, strict=True)
    ]
    return {
        "metrics": {**outcome.row, **classification(probabilities, targets)},
        "classes": [{"name": name, **each} for name, each in zip(names, of_classes(confusion), strict=True)],
        "confusion": confusion.tolist(),
        "calibration": calibration(probabilities, targets)[1],
        "worst": worst,
    }


def _thumbnails(trial: Trial, places: np.ndarray) -> list[str | None]:
    """Images as data URLs of PNGs; null where examples are none."""
    if not isinstance(trial.run.facts, ImageFacts) or not len(places):
        return [None] * len(places)
    images = trial.batches.stored(torch.as_tensor(places)).cpu().numpy()
    return [as_png(image) for image in images]


def table(trial: Trial, outcome: Outcome) -> Iterator[Cells]:
    """The lines of predictions-SPLIT.csv: headings, then an example a line."""
    names = trial.run.facts.class_names
    if trial.run.facts.num_classes:
        yield from _table_of_classes(names, outcome)
    elif names:
        yield ["index", "token_accuracy", "loss"]
        yield from _numbered(outcome.outputs[:, None], outcome.losses)
    else:
        count = outcome.outputs.shape[1]
        several = [f"_{place}" for place in range(1, count + 1)] if count > 1 else [""]
        yield ["index", *(f"{word}{end}" for word in ("target", "prediction") for end in several), "loss"]
        yield from _numbered(np.hstack([outcome.targets, outcome.outputs]), outcome.losses)


def _numbered(values: np.ndarray, losses: np.ndarray) -> Iterator[Cells]:
    for index, (row, loss) in enumerate(zip(values.tolist(), losses.tolist(), strict=True)):
        yield [index, *row, loss]


def _table_of_classes(names: tuple[str, ...], outcome: Outcome) -> Iterator[Cells]:
    """The probability of each class or, where there are many, the most probable ones and theirs."""
    whole = len(names) <= MOST_COLUMNS
    ranks = range(1, TOP + 1)
    more = (
        [f"p({name})" for name in names] if whole else [f"{word}_{rank}" for rank in ranks for word in ("class", "p")]
    )
    yield ["index", "target", "prediction", "probability", "loss", *more]
    order = np.argsort(-outcome.outputs, axis=1, kind="stable")[:, :TOP]
    for index, (target, row, top, loss) in enumerate(
        zip(outcome.targets, outcome.outputs, order, outcome.losses, strict=True)
    ):
        best = top[0]
        told = row.tolist() if whole else [cell for each in top for cell in (names[each], float(row[each]))]
        yield [index, names[target], names[best], float(row[best]), float(loss), *told]
