"""Mistakes in training code: each puts one into the package for as long as a test lasts."""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from torch import nn

from dltrain import build as building
from dltrain import metrics, optim, schedules, trained
from dltrain.build import supply
from dltrain.data import batches as serving
from dltrain.data.batches import Batches
from dltrain.engine import Engine, step, strategy
from dltrain.verbs import _keeper

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A mistake, the checks that must catch it, and the overrides without which it changes nothing."""

    name: str
    what: str
    make: Callable[[Patch], None]
    caught_by: frozenset[str]
    needs: tuple[str, ...] = ()


MUTANTS: dict[str, Mutant] = {}


def mutant(caught_by: str, *needs: str) -> Callable[[Callable[[Patch], None]], None]:
    """Enter a function, whose docstring says what is wrong; `caught_by` names checks, by spaces."""

    def enter(make: Callable[[Patch], None]) -> None:
        caught = frozenset(caught_by.split())
        MUTANTS[make.__name__] = Mutant(make.__name__, make.__doc__ or "", make, caught, needs)

    return enter


@contextmanager
def mutated(name: str):
    """The package with that mistake in it."""
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name].make(patch)
        yield


def after(patch: Patch, owner: Any, name: str, change: Callable[..., Any]) -> None:
    """Have a function's result changed: `change(result, *arguments)`."""
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda *some, **more: change(original(*some, **more), *some))


@mutant("overfit ci")
def no_zero_grad(patch):
    """Gradients of all steps so far add up."""

    def adding_up(optimizer, *_):
        optimizer.zero_grad = lambda set_to_none: None
        return optimizer

    after(patch, building, "make_optimizer", adding_up)


@mutant("smoke overfit ci")
def gradient_ascent(patch):
    """Steps go up the slope."""

    def turned(result, engine, batch):
        for parameter in engine.parameters:
            parameter.grad.neg_()
        return result

    after(patch, Engine, "_backward", turned)


@mutant("overfit ci")
def evaluation_in_training_mode(patch):
    """model.eval() is forgotten."""
    patch.setattr(nn.Module, "eval", lambda self: self)


@mutant("overfit ci")
def training_in_evaluation_mode(patch):
    """model.train() is forgotten after an evaluation."""
    original = Engine.evaluating

    @contextmanager
    def evaluating(self):
        with original(self) as totals:
            yield totals
        self.model.eval()

    patch.setattr(Engine, "evaluating", evaluating)


@mutant("smoke overfit ci")
def rate_of_zero(patch):
    """The optimizer's rate is 0."""
    patch.setattr(
        Engine, "_set_rates", lambda self, rates: [group.update(lr=0.0) for group in self.optimizer.param_groups]
    )


@mutant("overfit ci")
def frozen_layer(patch):
    """The first layer does not require a gradient."""

    def frozen(model, *_):
        next(model.parameters()).requires_grad_(False)
        return model

    after(patch, building, "make_model", frozen)


@mutant("overfit ci")
def layer_without_optimizer(patch):
    """The optimizer is not given the classifier."""
    after(
        patch, optim, "parameter_groups", lambda groups, *_: [each for each in groups if each["role"] != "classifier"]
    )


@mutant("smoke overfit ci")
def optimizer_of_a_copy(patch):
    """The optimizer holds the parameters of another model."""
    original = building.make_optimizer
    patch.setattr(building, "make_optimizer", lambda node, model, *more: original(node, copy.deepcopy(model), *more))


@mutant("overfit ci", "model.norm=batch")
def norm_momentum_zero(patch):
    """Batch norm's running statistics are never updated."""

    def still(model, *_):
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 0.0
        return model

    after(patch, building, "make_model", still)


@mutant("overfit ci")
def loss_summed(patch):
    """The loss is a sum over the batch, not a mean."""
    after(patch, Engine, "_loss", lambda loss, engine, logits, targets: loss * len(targets))


@mutant("overfit ci")
def softmax_before_cross_entropy(patch):
    """Cross-entropy is given probabilities, not logits."""
    original = Engine._loss
    patch.setattr(Engine, "_loss", lambda self, logits, targets: original(self, logits.softmax(1), targets))


@mutant("overfit ci")
def labels_off_by_one(patch):
    """Training, and training alone, takes every class for the next one."""
    original = Engine.losses
    patch.setattr(Engine, "losses", lambda self, batch: original(self, (batch[0], (batch[1] + 1) % 10)))


@mutant("overfit ci")
def accuracy_of_two_guesses(patch):
    """What is called accuracy counts the second guess, too."""

    def correct(logits, targets):
        return (logits.topk(2, dim=1).indices == targets[:, None]).sum()

    patch.setitem(metrics.MEASURES, "accuracy", metrics.Measure(correct))


@mutant("overfit ci", "model.dropout=0.5")
def dropout_in_evaluation(patch):
    """Dropout drops in evaluation mode, too."""
    patch.setattr(nn.Dropout, "forward", lambda self, inputs: F.dropout(inputs, self.p, True))


@mutant("overfit ci", "trainer.microbatch=4", "model.norm=none")
def parts_not_divided(patch):
    """The gradients of a batch's parts are added up as if each part were the whole."""
    original = Engine.losses

    def losses(self, batch):
        for loss, logits, targets in original(self, batch):
            yield loss * (len(batch[0]) / len(targets)), logits, targets

    patch.setattr(Engine, "losses", losses)


@mutant("ci")
def shuffled_labels(patch):
    """The labels of the training part belong to other images."""

    def shuffled(parts, *_):
        train = parts["train"]
        order = np.random.default_rng(0).permutation(len(train.targets))
        return {**parts, "train": replace(train, targets=train.targets[order])}

    after(patch, supply, "split_examples", shuffled)


@mutant("ci")
def unstandardized_evaluation(patch):
    """What is evaluated is not standardized as what is trained on."""
    original = Batches.epoch

    def epoch(self, epoch, start=0):
        for inputs, targets in original(self, epoch, start):
            yield (inputs if self.shuffle else inputs * self.prepare.deviation.mean() + 1), targets

    patch.setattr(Batches, "epoch", epoch)


@mutant("ci")
def unstandardized_prediction(patch):
    """Pictures to be predicted are not standardized."""
    after(patch, trained, "restored", lambda pixels, *_: replace(pixels, mean=0 * pixels.mean))


@mutant("ci")
def class_names_permuted(patch):
    """A trained model's answers bear the names of other classes."""

    def permuted(usage, *_):
        first, *others = usage["class_names"]
        return {**usage, "class_names": [*others, first]}

    after(patch, _keeper.Keeper, "_usage", permuted)


@mutant("ci")
def one_batch_for_ever(patch):
    """The sampler gives the same few examples in every batch."""
    after(patch, Batches, "order", lambda order, self, *_: order if order is None else order % self.batch_size)


@mutant("ci")
def last_examples_dropped(patch):
    """The last, partial batch is left out, in training and evaluation."""

    def whole(bounds, *_):
        sizes = [last - first for first, last in bounds]
        return bounds[:-1] if sizes[-1] < sizes[0] else bounds

    for module in (supply, serving):
        after(patch, module, "batch_bounds", whole)


@mutant("ci", "augment=crop_flip")
def augmented_evaluation(patch):
    """What is evaluated is augmented."""
    original = supply.Supply._batches

    def batches(self, split, part, how):
        made = original(self, split, part, how)
        made.augment = self.augmentation
        return made

    patch.setattr(supply.Supply, "_batches", batches)


@mutant("ci", "trainer.ema=0.9")
def average_that_stays(patch):
    """The averaged weights are never moved."""
    patch.setattr(step, "average", lambda averaged, model, *, decay: None)


@mutant("", "schedule.warmup=4")
def schedule_stuck_in_warmup(patch):
    """The rate stays where warm-up began."""
    after(patch, schedules, "warmup", lambda schedule, *_: lambda step, *rest: schedule(0, *rest))


@mutant("ci")
def weights_not_restored(patch):
    """A resumed run begins with new weights."""
    original = Engine.load_state_dict
    patch.setattr(
        Engine, "load_state_dict", lambda self, state: original(self, {**state, "model": self.model.state_dict()})
    )


@mutant("ci")
def optimizer_not_restored(patch):
    """A resumed run begins with an optimizer that remembers nothing."""
    patch.setattr(strategy, "load_state", lambda optimizer, state: None)


@mutant("ci")
def stale_checkpoint(patch):
    """A checkpoint holds the weights of the first one."""
    original, kept = _keeper.Keeper.save, {}

    def save(self):
        kept.setdefault("model", copy.deepcopy(self.run.engine.model.state_dict()))
        now = self.run.engine.state_dict()
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.run.engine, "state_dict", lambda: {**now, "model": kept["model"]})
            original(self)

    patch.setattr(_keeper.Keeper, "save", save)
