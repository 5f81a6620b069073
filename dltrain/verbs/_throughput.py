"""What the summary of a run says of its speed."""

from typing import Any

from dltrain import optim
from dltrain.components import find
from dltrain.engine import Engine
from dltrain.engine.probe import Probe, operation_seconds
from dltrain.run.bottleneck import bottleneck
from dltrain.run.pace import Pace


def throughput(engine: Engine, pace: Pace, probe: Probe, *, train_flops: int) -> dict[str, Any]:
    """The rates of the steady steps and what held them up; null where there were too few to tell.

    `train_flops` are those of an image.
    """
    rate = pace.images_per_second()
    words = ("flops_per_second", "waiting_for_data", "bottleneck")
    known: dict[str, Any] = {"train_flops_per_image": train_flops, "images_per_second": rate}
    if rate is None:
        return {**known, **dict.fromkeys(words)}
    an_operation = operation_seconds(engine, find(optim, "SGD", "optim"))
    shares = pace.shares(fixed=probe.operations * an_operation + probe.update_seconds)
    flops_per_second = rate * train_flops
    sentence = bottleneck(
        shares,
        operations=probe.operations,
        flops_per_second=flops_per_second,
        waits=probe.waits,
        asynchronous=pace.asynchronous,
    )
    return {**known, **dict(zip(words, (flops_per_second, shares["data"], sentence), strict=True))}
