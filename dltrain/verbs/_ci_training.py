"""Stages of `trainer=ci`: what training was given, what it saved, and that it can go on from there.

Each returns what was seen, and raises CheckError for what is not as it must be.
"""

import contextlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from dltrain import data as data_sets
from dltrain.build import Run, build
from dltrain.components import make
from dltrain.config.tree import container
from dltrain.data.batches import Batches
from dltrain.data.dataset import Examples
from dltrain.data.function import FunctionFacts
from dltrain.run import checkpoint
from dltrain.run.folder import read_json
from dltrain.run.record import Row, read_rows
from dltrain.train import fit
from dltrain.verbs._checks import Watch
from dltrain.verbs._ci_subject import SCRATCH, Subject, near, require
from dltrain.verbs._overfit import PLAIN, without_dropout
from dltrain.verbs._start import go_on
from dltrain.verbs._trial import OneEpoch, changed

MOST_PROBED, PART, STEPS = 64, 4096, 5


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


def steps(subject: Subject) -> str:
    """Steps follow the gradient of their batch's mean loss and move all that trains; evaluating changes nothing.

    Of a run of its own, without what would make these numbers others: augmentation, decay, dropout, clipping.
    """
    if isinstance(subject.run.facts, FunctionFacts):
        return "left out: a point on a landscape is no network"
    plain, _ = changed(subject.composition, {**PLAIN, "trainer.clip_norm": None, "trainer.clip_value": None})
    run = build(plain.config)
    batches = run.batches["train"]
    try:
        watch = Watch(run, next(iter(batches.epoch(0))))
        without_dropout(run.model)
        for event in fit(run.engine, OneEpoch(batches, STEPS + 1), epochs=1, log_every=1):
            watch.follow(event.step)
            if event.step == STEPS:
                break
        findings = watch.end()
    finally:
        for each in run.batches.values():
            each.close()
    require(not findings, "; ".join(findings))
    return f"{STEPS} steps by the gradient of their batch's loss move every parameter; evaluating changes nothing"


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
    twin = subject.folder / SCRATCH
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
    shutil.copytree(folder, twin, ignore=shutil.ignore_patterns(SCRATCH, ".lock", "summary.json", "evaluation-*"))
    paths = checkpoint.steps(twin / "checkpoints")
    require(len(paths) > 1, "there is no checkpoint before the last one: trainer.epochs must be 2 or more")
    *_, before, newest = paths
    shutil.rmtree(newest)
    return checkpoint.number(before)


def _lasting(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "images_per_second"}


def _require_equal(subject: Subject, own: list[Row], resumed: list[Row], step: int) -> None:
    for row, again in zip(own, resumed, strict=True):
        same = row == again if subject.exact else near(row["loss"], again["loss"], subject.close)
        words = f"{row['split']} loss of step {row['step']} was {row['loss']} and is {again['loss']}"
        require(same, f"resumed at step {step}, it differs: {words}")
