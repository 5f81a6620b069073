"""The stages of `trainer=ci`: each returns what was seen, and raises CheckError for what is not as it must be."""

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from dltrain import data as data_sets
from dltrain.build import Run
from dltrain.components import make
from dltrain.config.compose import Composition
from dltrain.config.tree import container
from dltrain.data.batches import Batches
from dltrain.data.dataset import Examples
from dltrain.data.facts import ImageFacts
from dltrain.data.function import FunctionFacts
from dltrain.data.pictures import png
from dltrain.run import checkpoint
from dltrain.run.folder import read_json
from dltrain.run.record import Row, measures, read_rows
from dltrain.trained import Trained, load
from dltrain.verbs._evaluation import Outcome, Trial, prepare, score
from dltrain.verbs._predict_pictures import predict_pictures
from dltrain.verbs._start import go_on

MOST_PROBED, MOST_PREDICTED = 64, 16
PART = 4096
CLOSE = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 1e-2}  # of outputs in 0..1 or of relative losses, by precision


class CheckError(Exception):
    """What is not as it must be, in one line."""


@dataclass
class Subject:
    """The run that was just trained, in its folder."""

    folder: Path
    run: Run
    composition: Composition

    @property
    def exact(self) -> bool:
        """Whether the same computation gives the same bits."""
        return self.run.engine.device.type == "cpu" or bool(self.run.config.device.deterministic)

    @property
    def close(self) -> float:
        """How near numbers must come that are computed in another way."""
        return CLOSE[self.run.engine.precision.name]

    @cached_property
    def outcomes(self) -> dict[str, tuple[Trial, Outcome]]:
        """What the run's best weights make of its splits but train, read back from the folder alone.

        None of a function, each step of which is an evaluation.
        """
        if isinstance(self.run.facts, FunctionFacts):
            return {}
        return {split: self._outcome(split) for split in self.run.batches if split != "train"}

    @cached_property
    def trained(self) -> Trained:
        """The model read back, as its users have it."""
        return load(self.folder)

    def _outcome(self, split: str) -> tuple[Trial, Outcome]:
        trial = prepare(self.folder, split=split, which="best", data=[], device=None)
        limited = trial.run.batches[split]
        limited.prepare = trial.batches.prepare
        trial = replace(trial, batches=limited)
        return trial, score(trial)


def require(holds: bool, words: str) -> None:
    """Raise CheckError with these words where something does not hold."""
    if not holds:
        raise CheckError(words)


def data(subject: Subject) -> str:
    """Every example is served once an epoch, and has the target that it has in the data set."""
    run = subject.run
    known = make(data_sets, run.config.data).load()
    probed = 0
    for split, batches in run.batches.items():
        count, order = run.facts.num_examples[split], batches.order(0)
        served = batches.in_order().num_examples
        require(served == count, f"{split} serves {served} of {count} examples")
        once = not batches.shuffle or (order is not None and order.sort().values.equal(torch.arange(count)))
        require(once, f"an epoch of {split} does not take every example once")
        probes = _probes(batches, names=run.facts.class_names)
        wrong = probes - _among(known.get(split, known["train"]), {each for each, _ in probes}, run)
        require(not wrong, f"{len(wrong)} of {len(probes)} examples of {split} have targets that are not theirs")
        probed += len(probes)
    return f"an epoch takes every example once; the targets of {probed} are those of the data set"


Probe = tuple[bytes, str]


def _probes(batches: Batches, *, names: Sequence[str]) -> set[Probe]:
    """Some examples as they are served: the digest of the input, and the target."""
    places = torch.arange(min(batches.count, MOST_PROBED))
    inputs, targets = (each.cpu().numpy() for each in batches.stored(places))
    return {(each.tobytes(), _named(target, names)) for each, target in zip(inputs, targets, strict=True)}


def _among(examples: Examples, digests: set[bytes], run: Run) -> set[Probe]:
    """Those examples of a part of the data set, by what the data set calls its classes."""
    names, found = make(data_sets, run.config.data).facts().class_names, set()
    for start in range(0, len(examples.targets), PART):
        part = slice(start, start + PART)
        for each, target in zip(np.asarray(examples.inputs[part]), examples.targets[part], strict=True):
            if (digest := each.tobytes()) in digests:
                found.add((digest, _named(target, names)))
    return found


def _named(target: np.ndarray, names: Sequence[str]) -> str:
    """A class by its name, which choosing among classes does not change."""
    return names[int(target)] if names and target.ndim == 0 else target.tobytes().hex()


def newest_checkpoint(subject: Subject) -> str:
    """The newest checkpoint holds the weights of the last step, and averages that have moved."""
    summary = read_json(subject.folder / "summary.json") or {}
    paths = checkpoint.steps(subject.folder / "checkpoints")
    (first, _), (last, state) = checkpoint.load(paths[0]), checkpoint.load(paths[-1])
    steps = summary["steps"]
    require(state["step"] == steps, f"the newest checkpoint is of step {state['step']} of {steps}")
    digest = checkpoint.weights_sha256(last["model"])
    require(digest == summary["weights_sha256"], f"the checkpoint of step {steps} holds other weights than that step's")
    if "ema" in last:
        still = all(torch.equal(value, first["ema"][name]) for name, value in last["ema"].items())
        require(not still, "the averaged weights do not move")
    return f"{len(paths)} verify, the newest with the weights of step {steps}"


def resume(subject: Subject) -> str:
    """A run that goes on from an earlier checkpoint ends as the one that was not interrupted."""
    twin = subject.folder / ".ci"
    try:
        step = _interrupted(subject.folder, twin)
        plain = container(subject.composition.config)
        plain["trainer"]["check_all"], plain["logger"] = False, None
        with contextlib.redirect_stdout(io.StringIO()):
            code = go_on(twin, replace(subject.composition, config=OmegaConf.create(plain)))
        require(code == 0, f"a run resumed at step {step} ends with code {code}")
        own, resumed = ([_lasting(row) for row in read_rows(folder)] for folder in (subject.folder, twin))
        _require_equal(subject, own, resumed, step)
        digests = [(read_json(folder / "summary.json") or {})["weights_sha256"] for folder in (subject.folder, twin)]
        require(digests[0] == digests[1] or not subject.exact, f"resumed at step {step}, it ends with other weights")
    finally:
        shutil.rmtree(twin, ignore_errors=True)
    return f"from step {step} on, the same rows" + (" and weights" if subject.exact else "")


def _interrupted(folder: Path, twin: Path) -> int:
    """Copy a run as if it had been interrupted after its last checkpoint but one; returns that one's step."""
    shutil.copytree(folder, twin, ignore=shutil.ignore_patterns(".ci", ".lock", "summary.json", "evaluation-*"))
    *_, before, newest = checkpoint.steps(twin / "checkpoints")
    shutil.rmtree(newest)
    return checkpoint.number(before)


def _lasting(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "images_per_second"}


def _require_equal(subject: Subject, own: list[Row], resumed: list[Row], step: int) -> None:
    for row, again in zip(own, resumed, strict=True):
        same = row == again if subject.exact else _near(row["loss"], again["loss"], subject.close)
        words = f"{row['split']} loss of step {row['step']} was {row['loss']} and is {again['loss']}"
        require(same, f"resumed at step {step}, it differs: {words}")


def _near(first: float, second: float, close: float) -> bool:
    return abs(first - second) <= close * max(1.0, abs(first))


def evaluate(subject: Subject) -> str:
    """The weights that were kept lead to the numbers of the record, over as many examples."""
    trainer, told = subject.run.config.trainer, []
    rows = read_rows(subject.folder)
    if not subject.outcomes:
        return "left out: no data are held out"
    for split, (trial, outcome) in subject.outcomes.items():
        of_split = [row for row in rows if row["split"] == split]
        row = next((row for row in of_split if row["step"] == trial.step), of_split[-1])
        limit, count = trainer[f"limit_{split}_batches"], trial.run.facts.num_examples[split]
        expected = min(count, (limit or count) * trial.batches.batch_size)
        require(len(outcome.losses) == expected, f"{len(outcome.losses)} of {expected} examples of {split} evaluated")
        for name, value in measures(row).items():
            again = outcome.row[name]
            require(_near(value, again, subject.close), f"{split} {name} was {value} in training, and is {again}")
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


def _require_pictures(subject: Subject, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Files of these pictures get the same answers."""
    folder, told = subject.folder / ".ci", io.StringIO()
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
