"""What an evaluation says of a split: the content of evaluation-SPLIT.json and of predictions-SPLIT.csv."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from dltrain.data.facts import ImageFacts
from dltrain.data.pictures import as_png
from dltrain.engine.device import describe
from dltrain.evaluation import (
    TOP,
    calibration,
    classification,
    confusion_matrix,
    of_classes,
    regression,
    worst_mistakes,
)
from dltrain.verbs._evaluation import Outcome, Trial

MOST_MISTAKES, MOST_COLUMNS = 24, 20
Content = dict[str, Any]
Cells = list[Any]


def content(trial: Trial, outcome: Outcome, *, looks: dict[str, int] | None) -> Content:
    """What evaluation-SPLIT.json says of an outcome, with how often the test set was looked at, where it is that."""
    run = trial.run
    return {
        "split": trial.split,
        "examples": len(outcome.losses),
        "model": run.config.model.name,
        "checkpoint": {"chosen": trial.chosen, "step": trial.step, "averaged": trial.averaged},
        "data": {"name": run.config.data.name, "fingerprint": run.data_fingerprint, "same": trial.own_data},
        "device": describe(run.engine.device),
        "precision": run.engine.precision.name,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
        "looks": looks,
        **_measured(trial, outcome),
    }


def _measured(trial: Trial, outcome: Outcome) -> Content:
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
    images, _ = trial.batches.stored(torch.as_tensor(places))
    return [as_png(image) for image in images.cpu().numpy()]


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
