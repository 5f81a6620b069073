"""What one of several gloo ranks does in tests of the mathematics, in a process of its own."""

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from dltrain.engine import Engine, Ranks, joined

CASES: dict[str, dict[str, Any]] = {
    "sgd": {"option": "sgd"},
    "adam": {"option": "adam"},
    "everything": {"option": "adam", "clip_norm": 0.1, "microbatch": 3, "ema": 0.9, "l2": 0.1},
}


def steps(ranks: Ranks, **keywords: Any) -> dict[str, Any]:
    """Four epochs of 45 examples in batches of 11, the last one too small to be shared: losses, rows, samples."""
    from engines import batches, engine, network

    model = network(norm=False, dropout=0.0)
    several = ranks if ranks.size > 1 else None
    some: Engine = engine(model=model, lr=0.05, ranks=ranks, **keywords)
    served = batches(47, batch_size=11, augmented=False, ranks=several)  # 4 batches of 11 and one of 3
    served.shuffle = True
    result: dict[str, Any] = {"losses": [], "rows": [], "seen": []}
    for epoch in range(4):
        some.begin_epoch()
        for number, batch in enumerate(served.epoch(epoch)):
            some.step(batch, epoch * len(served) + number)
            result["losses"].append(float(some.last_loss))
            result["seen"].append(sorted({_digest(image) for own in ranks.gather(batch[0]) for image in own}))
        row = some.report(epoch=True)
        result["rows"].append([row["loss"], row["accuracy"]])
    evaluated = batches(33, batch_size=10, augmented=False, ranks=several, evaluated=True)
    with some.evaluating() as totals:
        for batch in evaluated.epoch(0):
            some.score(batch, totals)
        result["counted"] = totals._common()
        result["evaluated"] = totals.read()["accuracy"]
    weights = some.weights()
    result["norm"] = float(
        sum(weights[name].square().sum() for name, _ in some.evaluated.named_parameters() if weights)
    )
    return result


def poisoned(ranks: Ranks) -> dict[str, Any]:
    """A step whose second half has a pixel that is not a number, with batch norm's statistics at stake."""
    from engines import engine, network, poisoned

    some = engine(model=network(dropout=0.0), ranks=ranks)
    images, labels = poisoned()
    first, last = ranks.share(0, len(images))
    images, labels = images.flip(0)[first:last], labels.flip(0)[first:last]
    before = {name: value.clone() for name, value in some.model.state_dict().items()}
    some.step(ranks.part((images, labels), 10), 0)
    kept = all(torch.equal(before[name], value) for name, value in some.model.state_dict().items())
    finite = bool(torch.isfinite(images).all())
    return {"finite": finite, "kept": kept, "nonfinite": some.report(epoch=False)["nonfinite_steps"]}


def statistics(ranks: Ranks) -> dict[str, Any]:
    """Batch norm's statistics after a step, on every rank."""
    from engines import batches, engine, network

    some = engine(model=network(dropout=0.0), ranks=ranks)
    for number, batch in enumerate(batches(40, ranks=ranks).epoch(0)):
        some.step(batch, number)
    return {"every": ranks.gather([buffer.tolist() for buffer in some.statistics])}


def reductions(ranks: Ranks) -> int:
    """How often gradients are averaged in a step that is computed in parts."""
    from engines import batches, engine, network

    reduced: list[int] = []
    some = engine(model=network(dropout=0.0), ranks=ranks, microbatch=2)

    def hook(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        reduced.append(bucket.index())
        return default_hooks.allreduce_hook(None, bucket)

    some.forward.register_comm_hook(None, hook)
    some.step(next(batches(40, ranks=ranks).epoch(0)), 0)
    return len(reduced)


def _digest(image: Tensor) -> float:
    return round(float((image * torch.arange(image.numel()).view_as(image)).sum()), 3)


def be(rank: int, size: int, port: str) -> None:
    """Be one of the processes that torchrun starts, as its variables say."""
    several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in several.items()}, MASTER_ADDR="127.0.0.1")


def main(rank: int, size: int, port: str, path: Path) -> None:
    """Do every case on a rank; the first one writes what came of them."""
    be(rank, size, port)
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as ranks:
        found: dict[str, Any] = {name: steps(ranks, **case) for name, case in CASES.items()}
        if ranks.size > 1:
            found |= {"poisoned": ranks.gather(poisoned(ranks)), "statistics": statistics(ranks)}
            found["reductions"] = reductions(ranks)
        if ranks.leads:
            path.write_text(json.dumps(found))
