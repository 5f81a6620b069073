"""Training on one batch until it is known by heart, and why that fails where it does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dltrain.engine.step import Batch
from dltrain.models.layers import NotesDropout
from dltrain.run.console import number
from dltrain.verbs._checks import Watch, by_hand
from dltrain.verbs._trial import Trial

ENOUGH = 0.99  # of what can be right
EXPLAINED = 0.95  # of the targets' variance, where they are numbers
PATIENCE = 500  # steps without progress beside as many before them
EVERY = 5  # steps between two looks
STILL, ROSE = 0.02, 1.05  # of the first loss: a change that is none, and one that is a rise
FEW_LOSSES = 10

# What keeps a network from knowing a batch by heart, and makes its losses those of other images or weights.
PLAIN: dict[str, Any] = {
    "augment": {"name": "none"},
    "schedule": {"name": "constant", "warmup": 0},
    "loss.label_smoothing": 0.0,
    "loss.l2": 0.0,
    "optim.weight_decay": 0.0,
    "trainer.ema": None,
    "trainer.constant_rate": None,
    "trainer.accumulate": 1,
    "trainer.overfit_batches": 1,
}


@dataclass(frozen=True)
class Known:
    """Whether a batch is known, how much of it in words, and the loss, None where it is not finite."""

    enough: bool
    words: str
    loss: float | None


@dataclass(frozen=True)
class Outcome:
    """What came of the trial: `findings` are empty where it passed."""

    steps: int
    evaluated: Known
    trained: Known
    findings: list[str]

    @property
    def passed(self) -> bool:
        """Whether the batch is known in evaluation mode, and nothing was found."""
        return self.evaluated.enough and not self.findings


def without_dropout(model: nn.Module) -> int:
    """Switch the dropout layers of a model off; returns how many had something to drop."""
    found = 0
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            module.p, found = 0.0, found + 1
        elif isinstance(module, NotesDropout) and module.ratio > 0:
            module.ratio, found = 0.0, found + 1
    return found


def overfit(trial: Trial, *, steps: int) -> Outcome:
    """Train on the first batch until it is known in evaluation mode, or for so many steps; dropout counts as set."""
    run = trial.run
    batch = next(iter(run.batches["train"].epoch(0)))
    watch, losses = Watch(run, batch), list[float | None]()
    if dropouts := without_dropout(run.model):
        trial.console.say(f"off for this check: dropout, {dropouts} layers")
    most = attainable(batch)
    for row in trial.steps(steps):
        losses.append(row["loss"])
        if row["loss"] is None or row.get("nonfinite_steps"):
            break
        watch.follow(row["step"])
        if row["step"] % EVERY == 0 and (known(trial, batch, most, training=False).enough or stalled(losses)):
            break
    evaluated, trained = (known(trial, batch, most, training=training) for training in (False, True))
    findings = watch.end()
    if not evaluated.enough:
        findings = [*why(losses, trained), *findings]
    return Outcome(len(losses), evaluated, trained, list(dict.fromkeys(findings)))


def stalled(losses: list[float | None]) -> bool:
    """Whether the loss no longer falls."""
    before, lately = losses[-2 * PATIENCE : -PATIENCE], losses[-PATIENCE:]
    return len(before) == PATIENCE and _mean(lately) > (1 - STILL) * _mean(before)


def _mean(losses: list[float | None]) -> float:
    return float(np.mean([loss for loss in losses if loss is not None]))


def why(losses: list[float | None], trained: Known) -> list[str]:
    """The most likely reason that the batch is not known, by the losses of the steps."""
    if losses[-1] is None:
        return [f"the loss was not finite at step {len(losses)}: a lower optim.lr; dltrain lr-find suggests one"]
    if trained.enough:
        return ["in training mode the batch is known: the running statistics that evaluation uses do not follow"]
    first, last = _mean(losses[:1]), _mean(losses[-FEW_LOSSES:])
    path = f"{first:.4g} -> {last:.4g}"
    if last > ROSE * first:
        return [f"the loss rose, {path}: the rate is too high; dltrain lr-find suggests one"]
    if last > (1 - STILL) * first:
        return [f"the loss did not move, {path}: is the rate too low? dltrain lr-find suggests one"]
    if stalled(losses):
        return [f"the loss fell, {path}, and no further: is the model too small? dltrain lr-find suggests another rate"]
    return [f"the loss fell, {path}, not far enough: more --steps, or another rate, which dltrain lr-find suggests"]


def known(trial: Trial, batch: Batch, most: int, *, training: bool) -> Known:
    """How much of a batch the model of now knows, in a mode; `most` answers can be right where they are classes."""
    with torch.no_grad():
        logits, loss = by_hand(trial.run, batch, training=training)
    targets = batch[1]
    if not targets.is_floating_point():
        right = int((logits.argmax(1) == targets).sum())
        of = f"{most}" if most == targets.numel() else f"the {most} that can be, of {targets.numel()},"
        return Known(right >= ENOUGH * most, f"{right} of {of} right", finite(loss))
    spread = float(trial.run.engine.loss(targets.mean(0).expand_as(targets), targets))
    share = finite(1 - loss / spread) or 0.0
    return Known(share >= EXPLAINED, f"{share:.1%} of the targets' variance explained", finite(loss))


def finite(value: Tensor) -> float | None:
    """A number; None where it is none."""
    return float(value) if value.isfinite() else None


def attainable(batch: Batch) -> int:
    """How many of a batch's class targets can be right: of windows of tokens that begin alike one answer a place."""
    inputs, targets = batch
    if inputs.is_floating_point() or targets.ndim != 2:
        return targets.numel()
    windows, following = inputs.cpu().numpy(), targets.cpu().numpy()
    best = 0
    for place in range(windows.shape[1]):
        _, groups = np.unique(windows[:, : place + 1], axis=0, return_inverse=True)
        pairs, counts = np.unique(np.stack([groups.ravel(), following[:, place]]), axis=1, return_counts=True)
        best += int(sum(counts[pairs[0] == group].max() for group in range(groups.max() + 1)))
    return best


def said(outcome: Outcome) -> list[str]:
    """The verdict, then one line a finding."""
    word = "passed" if outcome.passed else "failed"
    line = f"{word}: {_spoken(outcome.evaluated)} after {outcome.steps} steps"
    if outcome.trained.words != outcome.evaluated.words:
        line += f"; in training mode {_spoken(outcome.trained)}"
    return [line, *(f"  {finding}" for finding in outcome.findings)]


def _spoken(known: Known) -> str:
    return f"{known.words} (loss {number(known.loss)})"
