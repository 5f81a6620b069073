"""Checks of training that hold for any network: what a step does, what an evaluation must not, who moves.

Each returns findings, sentences that name what is wrong; none where all is well.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from dltrain.build import Run
from dltrain.engine import Engine
from dltrain.engine.precision import at_least_float32
from dltrain.engine.step import Batch
from dltrain.run.record import measures
from dltrain.train import evaluate

NAMED = 3
LEAST_COSINE, MOST_RATIO = 0.98, 1.05  # of a gradient beside the same by hand, whose sums round otherwise
LEAST_PUSH = 1e-3  # of the largest entry of all gradients
CLOSE = 1e-3  # of a loss, likewise


class Outputs(NamedTuple):
    """What a model makes of a batch; the loss is a mean over it."""

    logits: Tensor
    loss: Tensor


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """The model in a mode; its modules' own modes are as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def by_hand(run: Run, batch: Batch, *, training: bool) -> Outputs:
    """Outputs and loss of a batch, computed without the engine; cross-entropy by its definition."""
    inputs, targets = batch
    engine = run.engine
    buffers = {name: buffer.clone() for name, buffer in engine.model.named_buffers()}  # whose changes are forgotten
    with in_mode(engine.model, training=training), engine.precision.autocast():
        logits = functional_call(engine.model, buffers, (inputs,))
    logits = logits.to(at_least_float32(logits.dtype))
    plain = run.config.loss.name == "cross_entropy" and not run.config.loss.label_smoothing
    if plain and targets.ndim < logits.ndim:
        loss = -F.log_softmax(logits, 1).gather(1, targets.unsqueeze(1)).mean()
    else:
        loss = engine.loss(logits, targets)
    return Outputs(logits, loss if engine.penalty is None else loss + engine.penalty())


def gradients_by_hand(run: Run, batch: Batch) -> dict[str, Tensor]:
    """The gradient of a batch's loss by each parameter's name, where it has one."""
    named = {name: parameter for name, parameter in run.engine.model.named_parameters() if parameter.requires_grad}
    loss = by_hand(run, batch, training=True).loss
    gradients = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
    return {name: each for name, each in zip(named, gradients, strict=True) if each is not None}


def comparable(engine: Engine) -> bool:
    """Whether a step's gradient is that of one batch as a whole: batch norm normalizes each part on its own."""
    normalizes = any(name.endswith("running_mean") for name, _ in engine.model.named_buffers())
    return not engine.searches and not (engine.microbatch and normalizes)


def wrong_gradient(engine: Engine, expected: dict[str, Tensor]) -> list[str]:
    """Whether the step just taken used the gradients expected of it; of clipped ones the direction counts alone."""
    gradients = {name: engine.model.get_parameter(name).grad for name in expected}
    if missing := [name for name, gradient in gradients.items() if gradient is None]:
        return [f"{listed(missing)}: a step has no gradient where the loss has one"]
    taken, right = _flat(gradients.values()), _flat(expected.values())
    if not taken.norm() or not right.norm():
        return [] if taken.norm() == right.norm() else ["either a step's gradient is zero or its loss's is, not both"]
    cosine, ratio = float(F.cosine_similarity(taken, right, dim=0)), float(taken.norm() / right.norm())
    if cosine < LEAST_COSINE and engine.clip_value is None:
        return [f"a step's gradient is not that of its batch's loss: their cosine is {cosine:.3f}"]
    clipped = engine.clip_norm is not None or engine.clip_value is not None
    if not clipped and not 1 / MOST_RATIO < ratio < MOST_RATIO:
        return [f"a step's gradient is {ratio:.3g} times that of its batch's mean loss"]
    return []


def _flat(gradients: Iterable[Tensor | None]) -> Tensor:
    return torch.cat([each.detach().flatten().float() for each in gradients if each is not None])


class Movement:
    """What training does to a model since this was made; parameters that `init.freeze` names may stay."""

    def __init__(self, run: Run) -> None:
        self.model, self.chosen = run.engine.model, bool(run.config.init.freeze)
        self.before = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def findings(self) -> list[str]:
        """Parameters that do not train, have no gradient or did not move, and running statistics that stayed."""
        still = {name for name, value in self.model.state_dict().items() if torch.equal(value, self.before[name])}
        named = dict(self.model.named_parameters())
        frozen = [name for name, parameter in named.items() if not parameter.requires_grad and not self.chosen]
        trained = [(name, parameter) for name, parameter in named.items() if parameter.requires_grad]
        unreached = [name for name, parameter in trained if parameter.grad is None or not parameter.grad.any()]
        unmoved = [name for name in self._pushed(trained) if name in still]
        statistics = [name for name in still if name.endswith(("running_mean", "running_var"))]
        return [
            f"{listed(names)}: {words}"
            for names, words in (
                (frozen, "not trained, and init.freeze does not ask for that"),
                ([name for name in unreached if name in still], "no gradient arrives"),
                (unmoved, "not moved by gradients that arrive: not in the optimizer, or at no rate to speak of"),
                (sorted(statistics), "running statistics that training does not update"),
            )
            if names
        ]

    def _pushed(self, trained: Sequence[tuple[str, nn.Parameter]]) -> list[str]:
        """Names of those with a gradient to speak of: a bias before a norm has one of rounding errors alone."""
        sizes = {name: float(each.grad.abs().max()) for name, each in trained if each.grad is not None}
        return [name for name, size in sizes.items() if size > LEAST_PUSH * max(sizes.values())]


def wrong_evaluation(run: Run, batch: Batch) -> list[str]:
    """Whether evaluating is done in evaluation mode, draws and changes nothing, and gives the numbers by hand."""
    engine, modes = run.engine, set[bool]()
    watched = engine.evaluated
    before = {name: value.clone() for name, value in watched.state_dict().items()}
    hook = watched.register_forward_pre_hook(lambda *_: modes.update(each.training for each in watched.modules()))
    try:
        first, second = (measures(evaluate(engine, OneBatch(batch))) for _ in range(2))
    finally:
        hook.remove()
    changed = [name for name, value in watched.state_dict().items() if not torch.equal(value, before[name])]
    return [
        words
        for wrong, words in (
            (True in modes, "evaluation is done in training mode"),
            (not engine.model.training, "training goes on in evaluation mode"),
            (bool(changed), f"{listed(changed)}: changed by an evaluation"),
            (first != second, f"two evaluations of one batch differ: {first} and {second}"),
        )
        if wrong
    ] or _wrong_numbers(run, batch, first)


def _wrong_numbers(run: Run, batch: Batch, row: dict[str, float]) -> list[str]:
    if run.engine.averaged is not None:
        return []
    with torch.no_grad():
        logits, loss = by_hand(run, batch, training=False)
    pairs = [("loss", float(loss), CLOSE * max(1.0, abs(float(loss))))]
    if "accuracy" in row and batch[1].ndim == 1:
        pairs.append(("accuracy", float((logits.argmax(1) == batch[1]).double().mean()), 1e-9))
    return [
        f"the {name} of an evaluation is {row[name]}, and by hand {right:.6g}"
        for name, right, slack in pairs
        if row[name] is None or not abs(row[name] - right) <= slack
    ]


class Watch:
    """Looks at all of that while a model without dropout trains on one batch."""

    def __init__(self, run: Run, batch: Batch) -> None:
        self.run, self.batch = run, batch
        self.findings = wrong_evaluation(run, batch)
        self.movement, self.expected = Movement(run), dict[str, Tensor]()

    def follow(self, step: int) -> None:
        """So many steps have been taken."""
        if step == 1 and comparable(self.run.engine):
            self.expected = gradients_by_hand(self.run, self.batch)
        elif step == 2 and self.expected:
            self.findings += wrong_gradient(self.run.engine, self.expected)

    def end(self) -> list[str]:
        """All that was found, each once."""
        found = [*self.findings, *self.movement.findings(), *wrong_evaluation(self.run, self.batch)]
        return list(dict.fromkeys(found))


class OneBatch:
    """A batch as an epoch of its own."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """That batch."""
        yield self.batch


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
