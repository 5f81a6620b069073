"""What one of several gloo ranks does in tests of what ranks divide, in a process of its own."""

import json
from pathlib import Path
from typing import Any

import ranks as tried
import torch
from torch import Tensor, nn

from dltrain.engine import Engine, Ranks, joined
from dltrain.engine.optimizer import tensors
from dltrain.run import checkpoint

STRATEGIES = ("ddp", "zero1", "fsdp2")
CASES: dict[str, dict[str, Any]] = {
    "momentum": {"option": "momentum"},
    "adam": {"option": "adam"},
    "everything": {"option": "adam", "clip_norm": 0.1, "microbatch": 3, "ema": 0.9, "l2": 0.1},
}
STEPS = 4


def made(ranks: Ranks, strategy: str = "ddp", option: str = "adam") -> Engine:
    """An engine with batch norm and averaged weights, and two matrices of the same size."""
    from engines import engine, network

    before, middle, last = network(dropout=0.0)[:5], [nn.Linear(144, 8), nn.Linear(8, 144)], nn.Linear(144, 3)
    return engine(option, nn.Sequential(*before, *middle, last), lr=0.02, ema=0.9, ranks=ranks, strategy=strategy)


def trained(some: Engine, first: int) -> list[float]:
    """The losses of some steps, from number `first`, and of the averaged weights before and after them."""
    from engines import batches

    served = [*batches(40, augmented=False, ranks=some.ranks if some.ranks.size > 1 else None).epoch(0)]
    losses = [evaluated(some, served[0])]
    for number in range(first, first + STEPS):
        some.step(served[number % len(served)], number)
        losses.append(float(some.last_loss))
    return [*losses, evaluated(some, served[0])]


def evaluated(some: Engine, batch: tuple[Tensor, Tensor]) -> float:
    """The loss of a batch, each rank having its part."""
    with some.evaluating() as totals:
        some.score(batch, totals)
        return float(totals.read()["loss"])


def saved(some: Engine, parent: Path) -> None:
    """Write a checkpoint as runs have it."""
    state = some.state_dict()
    optimizer, values = checkpoint.flatten(state["optim"])
    tensors = {"model": state["model"], "ema": state["ema"], "optim": optimizer}
    some.ranks.once(lambda: checkpoint.save(parent, STEPS, tensors, {"optim": values, "totals": state["totals"]}))


def restored(some: Engine, parent: Path) -> Engine:
    """Go on from it."""
    tensors, state = checkpoint.load(parent / checkpoint.folder_name(STEPS))
    optimizer = checkpoint.unflatten(tensors["optim"], state["optim"])
    rest = {"ema": tensors["ema"], "optim": optimizer, "precision": {}, "totals": state["totals"]}
    some.load_state_dict({"model": tensors["model"], **rest})
    return some


def copies(some: Engine) -> list[Tensor]:
    """All that a step changes on this rank."""
    changed = [*some.held.parameters(), *some.model.buffers(), *tensors(some.own)]
    return [tensor.detach().clone() for tensor in changed]


def poisoned(ranks: Ranks, strategy: str, option: str) -> bool:
    """Whether a step of which one rank's part has a pixel that is not a number, after others, leaves all as it was."""
    from engines import first_batch

    some = made(ranks, strategy, option)
    trained(some, 0)
    before = copies(some)
    images, labels = first_batch()
    first, last = ranks.share(0, len(images))
    if not ranks.leads:
        images[-1, 0, 0, 0] = float("nan")
    some.step(ranks.part((images[first:last], labels[first:last]), len(images)), STEPS)
    return all(torch.equal(*each) for each in zip(before, copies(some), strict=True))


def parts(ranks: Ranks, strategy: str) -> dict[str, Any]:
    """The numbers that this rank holds after some steps, and what it hears of another one's."""
    some = made(ranks, strategy)
    trained(some, 0)
    held = {
        "held": sum(parameter.numel() for parameter in some.parameters),
        "state": sum(tensor.numel() for tensor in tensors(some.own)),
        "gradients": sum(tensor.numel() for tensor in some.strategy.gradients(some.parameters, weight=1.0)),
        "weights": len(some.weights()),
    }
    if some.strategy.is_whole:
        return held
    rows = torch.tensor([1.0 if ranks.leads else float("nan")])
    return {**held, "flags": [bool(some.strategy.finite([rows])), some.strategy.agree(ranks.leads)]}


def going_on(ranks: Ranks, folder: Path) -> dict[str, Any]:
    """The steps of each strategy after those of each, from a checkpoint, and those without one."""
    found: dict[str, Any] = {}
    for before in STRATEGIES:
        some = made(ranks, before)
        trained(some, 0)
        saved(some, folder / before)
        found[before] = {"on": trained(some, STEPS)}
    for before in STRATEGIES:
        for after in STRATEGIES:
            found[before][after] = trained(restored(made(ranks, after), folder / before), STEPS)
    return found


def main(rank: int, size: int, port: str, folder: Path) -> None:
    """Do everything on a rank; the first one writes what came of it."""
    tried.be(rank, size, port)
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        found: dict[str, Any] = {"going on": going_on(ranks, folder)}
        for strategy in STRATEGIES:
            found[strategy] = {name: tried.steps(ranks, strategy=strategy, **case) for name, case in CASES.items()}
            found[strategy]["parts"] = ranks.gather(parts(ranks, strategy))
            found[strategy]["kept"] = {
                option: ranks.gather(poisoned(ranks, strategy, option)) for option in ("adam", "nadam")
            }
        if ranks.leads:
            (folder / "found.json").write_text(json.dumps(found))
