"""Stages of `trainer=ci`: what is done with a run that is over.

Each returns what was seen, and raises CheckError for what is not as it must be.
"""

import contextlib
import io
import json
import shutil
from importlib.util import find_spec

import numpy as np
import torch

from dltrain.data.facts import ImageFacts
from dltrain.data.function import FunctionFacts
from dltrain.data.pictures import png
from dltrain.export.formats import FORMATS
from dltrain.report.run_page import draw_page
from dltrain.run import looks
from dltrain.run.record import measures, read_rows
from dltrain.verbs._ci_subject import SCRATCH, Subject, near, require
from dltrain.verbs._exporting import examples_of
from dltrain.verbs._exporting import export as write_export
from dltrain.verbs._predict_pictures import predict_pictures

MOST_PREDICTED, MOST_COMPARED, MOST_BYTES = 16, 64, 2_000_000


def evaluate(subject: Subject) -> str:
    """The weights that were kept lead to the numbers of the record, over as many examples."""
    trainer, told = subject.run.config.trainer, []
    rows = read_rows(subject.folder)
    if not subject.outcomes:
        return "left out: no data are held out"
    if "test" in subject.outcomes:
        looks.add(subject.folder, by="ci", split="test", step=subject.outcomes["test"][0].step)
    for split, (trial, outcome) in subject.outcomes.items():
        of_split = [row for row in rows if row["split"] == split]
        row = next((row for row in of_split if row["step"] == trial.step), of_split[-1])
        limit, count = trainer[f"limit_{split}_batches"], trial.run.facts.num_examples[split]
        expected = min(count, (limit or count) * trial.batches.batch_size)
        require(len(outcome.losses) == expected, f"{len(outcome.losses)} of {expected} examples of {split} evaluated")
        for name, value in measures(row).items():
            again = outcome.row[name]
            require(near(value, again, subject.close), f"{split} {name} was {value} in training, and is {again}")
        told.append(f"{split} loss {outcome.row['loss']:.4f}")
    return f"as in the record: {', '.join(told)}"


def predict(subject: Subject) -> str:
    """The model as its users have it answers as the evaluation did, also on pictures in files."""
    facts = subject.run.facts
    if not subject.outcomes or (facts.class_names and not facts.num_classes):
        return "left out: texts are written on" if subject.outcomes else "left out: no data are held out"
    trial, outcome = [*subject.outcomes.values()][-1]
    count = min(MOST_PREDICTED, len(outcome.losses))
    inputs, _ = trial.batches.stored(torch.arange(count))
    names = subject.trained.class_names
    require(names == list(facts.class_names), f"classes are called {names} there")
    outputs, expected = subject.trained.predict(inputs.cpu()).numpy(), outcome.outputs[:count]
    largest = float(np.abs(outputs - expected).max() / max(1.0, np.abs(expected).max()))
    require(largest <= subject.close, f"an output is {largest:.2g} away from what the evaluation gave")
    if isinstance(facts, ImageFacts):
        _require_pictures(subject, inputs.cpu().numpy(), outputs)
    return f"{count} examples as in the evaluation"


def export(subject: Subject) -> str:
    """Every format whose packages are installed passes its gate."""
    if isinstance(subject.run.facts, FunctionFacts):
        return "left out: a point takes no inputs"
    examples, told = examples_of(subject.folder, subject.trained, [], most=MOST_COMPARED), []
    for name, made in FORMATS.items():
        if made.of_images_alone and examples.noun != "images":
            continue
        if lacking := [package for package in made.packages if find_spec(package) is None]:
            told.append(f"no {name} without {', '.join(lacking)}")
            continue
        entry, _ = write_export(subject.folder, subject.trained, examples, name, end="", tolerance=None)
        told.append(f"{name} within {entry['parity']['largest']:.2g}")
    return "; ".join(told)


def _require_pictures(subject: Subject, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Files of these pictures get the same answers."""
    folder, told = subject.folder / SCRATCH, io.StringIO()
    folder.mkdir()
    try:
        for number, image in enumerate(images):
            (folder / f"{number:02}.png").write_bytes(png(image))
        with contextlib.redirect_stdout(told):
            predict_pictures(subject.trained, [folder], top=1, as_json=True, invert=False)
    finally:
        shutil.rmtree(folder)
    answers = [json.loads(line)["predictions"][0] for line in told.getvalue().splitlines()]
    expected = [subject.run.facts.class_names[row.argmax()] for row in probabilities]
    require([each["class"] for each in answers] == expected, "pictures in files are called otherwise than in memory")


def report(subject: Subject) -> str:
    """The page can be drawn, with all of its parts and the result."""
    path = draw_page(subject.folder)
    text, size = path.read_text(), path.stat().st_size
    require(subject.folder.resolve().name in text, f"{path.name} does not name the run")
    require("is left out: " not in text, f"{path.name} leaves a part out that cannot be read")
    require(size <= MOST_BYTES, f"{path.name} has {size:,} bytes, and {MOST_BYTES:,} are the most")
    return f"{path.name}, {size / 1e3:.0f} kB"
