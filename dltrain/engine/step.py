"""One optimizer step and one evaluation of a batch, without waiting for the device."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_

from dltrain.engine import memory
from dltrain.engine.device import default_generator
from dltrain.engine.guard import Guard
from dltrain.engine.optimizer import average, be_capturable, tensors
from dltrain.engine.precision import Precision, at_least_float32
from dltrain.engine.search import search, searches
from dltrain.engine.strategy import Strategy
from dltrain.engine.totals import Totals

Batch = tuple[Tensor, Tensor]


class Engine:
    """Takes steps on a model.

    `loss(logits, targets)` is the mean over a batch; a metric is a sum over its examples, and rows show what `shown`
    makes of its mean. `schedule(step)` multiplies every group's initial rate. A batch is computed in parts of
    `microbatch` examples, whose gradients add up to the whole batch's; with `splits`, one that does not fit into memory
    is computed in smaller parts. `penalty()` is added to the loss. Dropout and the like draw from the device's default
    generator, seeded anew from (seed, step): no step depends on those before it. Each of several ranks has its `Part`
    of a batch; gradients, batch norm's statistics and what rows say are of the whole.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
        shown: Mapping[str, Callable[[float], float]] | None = None,
        schedule: Callable[[int], float],
        precision: Precision,
        penalty: Callable[[], Tensor] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        microbatch: int | None = None,
        splits: bool = False,
        ema: float | None = None,
        seed: int = 0,
        strategy: Strategy | None = None,
    ) -> None:
        strategy = self.strategy = strategy or Strategy()
        self.model, self.optimizer, self.precision, self.seed = model, optimizer, precision, seed
        self.loss, self.metrics, self.shown, self.schedule = loss, dict(metrics), shown, schedule
        self.clip_norm, self.clip_value, self.microbatch, self.splits = clip_norm, clip_value, microbatch, splits
        self.ranks, self.own, self.held = strategy.ranks, strategy.own(optimizer), strategy.held(model)
        self.forward, self.penalty = strategy.wrap(model), strategy.summed(penalty)
        self.parameters = [parameter for parameter in self.held.parameters() if parameter.requires_grad]
        self.buffers = list(model.buffers())
        self.statistics = [each for name, each in model.named_buffers() if "running_" in name]
        self.device = self.parameters[0].device
        self.generator = default_generator(self.device)
        self.fused = bool(optimizer.defaults.get("fused"))
        if self.device.type == "cuda" and not self.fused:
            be_capturable(optimizer, self.own)
        self.guard, self.updated, self.searches = Guard(), False, searches(optimizer)
        self.initial_rates = [group["lr"] for group in optimizer.param_groups]
        self.multiplier, self.execution, self.decay = 1.0, "eager", ema or 0.0
        self.averaged = strategy.copied(model) if ema else None
        self.window, self.epoch = self._totals(), self._totals()
        self.last_loss = torch.zeros((), dtype=at_least_float32(self.parameters[0].dtype), device=self.device)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated: the one of averaged weights where there is one."""
        return self.model if self.averaged is None else self.averaged

    def begin_epoch(self) -> None:
        """Start the sums and the clock of an epoch, and of its first row."""
        self.window.clear()
        self.epoch.clear()

    def report(self, *, epoch: bool) -> dict[str, Any]:
        """What a train row says, of the whole epoch or since the last report. Waits for the device."""
        self.epoch.join(self.window)
        row = {**(self.epoch if epoch else self.window).read(), "lr": self.initial_rates[0] * self.multiplier}
        self.window.clear()
        return row

    def step(self, batch: Batch, step: int) -> None:
        """Take optimizer step number `step`, from 0.

        Where the loss or a gradient is not finite, weights, batch norm's statistics and the optimizer's state stay.
        Raises OutOfMemory, which says what would fit.
        """
        self.multiplier = self.schedule(step)
        self._set_rates([initial * self.multiplier for initial in self.initial_rates])
        while lacking := self._attempt(lambda: self._take(batch), step):
            self.ranks.check_memory(lacking)
            fitting = memory.fitting(self, lambda: self._attempt(lambda: self._backward(batch), step), len(batch[0]))
            self.guard.restore()
            if fitting is None or not self.splits:
                raise memory.OutOfMemory(memory.words(batch[0].shape, lacking, fitting))
            self.set_microbatch(fitting)

    def set_microbatch(self, examples: int | None) -> None:
        """Compute a batch in parts of so many examples from now on; None: as a whole."""
        self.microbatch = examples

    def _attempt(self, work: Callable[[], object], step: int) -> str | None:
        """Do some of a step's work; where memory ran out, return what torch says of that, all being as before."""
        self.generator.manual_seed(hash((self.seed, step, *self.ranks.drawn_as)))
        if lacking := memory.lacking(work):
            self.guard.restore()
            self.optimizer.zero_grad(set_to_none=True)
        return lacking

    def _take(self, batch: Batch) -> None:
        """All of a step that depends on the batch, in place, so that it could be recorded and replayed."""
        self.guard.remember(self._endangered())
        self.optimizer.zero_grad(set_to_none=True)
        sums, count = self._backward(batch)
        weight = self.ranks.weight(batch)
        gradients = self.strategy.gradients(self.parameters, weight=weight)
        self.precision.scale_down(gradients)
        self.last_loss.copy_(sums[0] / count * weight)
        self.ranks.average([self.last_loss, *self.statistics])
        loss_finite = torch.isfinite(self.last_loss)
        if self.clip_norm is not None:
            norm = self.strategy.norm(gradients)
            finite = loss_finite & torch.isfinite(norm)
            clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        else:
            finite = loss_finite & self.strategy.finite(gradients)
        if self.clip_value is not None:
            clip_grad_value_(self.parameters, self.clip_value)
        finite = self._update(finite, batch)
        self.guard.restore_unless(finite)
        if self.averaged is not None:
            average(self.strategy.held(self.averaged), self.held, decay=self.decay)
        self.precision.follow(finite)
        # float16 overflows now and then by design: there only a loss that is not finite tells of divergence.
        self.window.add(sums, count, loss_finite if self.precision.scaled else finite, own=self.ranks.counts(batch))

    def _set_rates(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _endangered(self) -> list[Tensor]:
        """What a step that is not finite would spoil; a fused optimizer itself takes care of its weights and state."""
        return self.buffers if self.fused else [*self.buffers, *self.parameters, *tensors(self.own)]

    def _backward(self, batch: Batch) -> tuple[list[Tensor], int]:
        """Gradients of the whole batch, part by part; returns the sums of loss and metrics, and the examples."""
        totals: list[Tensor] = []
        for loss, logits, targets in self.losses(batch):
            self.precision.scale_up(loss * (self.ranks.weight(batch) * len(targets) / len(batch[0]))).backward()
            sums = self._sums(loss.detach(), logits.detach(), targets)
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        return totals, len(batch[0])

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The mean loss, the outputs and the targets of each part of a batch."""
        parts = memory.parts(batch, self.microbatch, shares=self.ranks.shares(batch))
        for number, (part, answers) in enumerate(parts, 1):
            with self.strategy.unshared(self.forward, when=number < len(parts)):
                with self.precision.autocast():
                    logits = self.forward(part)
                yield self._loss(logits, answers), logits, answers

    def _update(self, finite: Tensor, batch: Batch) -> Tensor:
        """Step the optimizer, a fused one only where the flag is true; returns the flag, false where it failed."""
        # The first update makes state, which nothing could put back, and a search decides on the host: wait here.
        if (self.searches or not self.updated) and not finite:
            return finite
        self.updated = True
        if self.searches:
            return search(self, batch)
        if self.fused:
            vars(self.own).update(found_inf=(~finite).float(), grad_scale=None)
        self.optimizer.step()
        return finite

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss in at least float32, with the penalty."""
        loss = self.loss(logits.to(at_least_float32(logits.dtype)), targets)
        return loss if self.penalty is None else loss + self.penalty()

    def _sums(self, loss: Tensor, logits: Tensor, targets: Tensor) -> list[Tensor]:
        sums = {metric: metric(logits, targets) for metric in set(self.metrics.values())}  # each once
        return [loss * len(logits), *(sums[metric] for metric in self.metrics.values())]

    def _totals(self) -> Totals:
        return Totals(["loss", *self.metrics], self.device, self.shown, ranks=self.ranks)

    @contextmanager
    def evaluating(self) -> Iterator[Totals]:
        """Totals to be filled by `score`, with the model in evaluation mode."""
        self.model.eval()
        try:
            with self.strategy.scoring():
                yield self._totals()
        finally:
            self.model.train()

    def score(self, batch: Batch, totals: Totals) -> Tensor:
        """Add a batch's loss and metrics to the totals, with the averaged weights where there are any; the outputs."""
        with self.precision.autocast():
            logits: Tensor = self.evaluated(batch[0])
        totals.add(self._sums(self._loss(logits, batch[1]), logits, batch[1]), len(batch[0]))
        return logits

    def has_skipped(self) -> bool:
        """Whether a step since the last report was not finite. Waits for the device."""
        return self.window.nonfinite() > 0

    def is_finite(self) -> bool:
        """Whether all weights are: an update can overflow where loss and gradients did not. Waits for the device."""
        return self.strategy.agree(all(bool(torch.isfinite(parameter).all()) for parameter in self.parameters))

    def drawn(self, step: int) -> Tensor:
        """The first random numbers that a step draws, float32 (8,)."""
        self.generator.manual_seed(hash((self.seed, step)))
        return torch.rand(8, device=self.device)

    def weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated: the averaged ones where there are any. Copies, on the first rank's CPU."""
        return {name: value.to("cpu", copy=True) for name, value in self.strategy.weights(self.evaluated).items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything that shapes the steps and rows to come; tensors are not copied. Waits for the device."""
        return {
            "model": self.strategy.weights(self.model),
            "optim": self.strategy.optimizer_state(self.optimizer),
            "ema": self.strategy.weights(self.averaged) if self.averaged is not None else None,
            "precision": self.precision.state_dict(),
            "totals": {"window": self.window.state_dict(), "epoch": self.epoch.state_dict()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; averaged weights start from the model's where the state has none. Settings stay ours."""
        self.strategy.load_weights(self.model, state["model"])
        if self.averaged is not None:
            self.strategy.load_weights(self.averaged, state["ema"] or state["model"])
        self.strategy.load_optimizer(self.optimizer, state["optim"])
        self.precision.load_state_dict(state["precision"])
        self.window.load_state_dict(state["totals"]["window"])
        self.epoch.load_state_dict(state["totals"]["epoch"])
        self.updated = False
