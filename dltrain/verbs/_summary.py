"""What a run came to: summary.json."""

from typing import Any

from dltrain import optim
from dltrain.build import Run
from dltrain.components import find
from dltrain.engine import Engine
from dltrain.engine.device import describe, peak_memory, threads
from dltrain.engine.probe import Probe, operation_seconds
from dltrain.run.bottleneck import bottleneck
from dltrain.run.pace import Pace
from dltrain.run.processor import Processor
from dltrain.run.record import measures
from dltrain.train import Row
from dltrain.verbs._keeper import Keeper


def summary(run: Run, keeper: Keeper, pace: Pace, probe: Probe, processor: Processor, *, train_flops: int) -> Row:
    """All but the status and the digest of the weights; `train_flops` are those of an image."""
    engine, position = run.engine, keeper.position
    return {
        "model": run.config.model.name,
        "parameters": sum(parameter.numel() for parameter in engine.model.parameters()),
        "epochs": int(position.epoch) if position.epoch == int(position.epoch) else position.epoch,
        "steps": position.step,
        "device": describe(engine.device),
        "precision": engine.precision.name,
        "execution": engine.execution,
        "compile": run.config.device.compile,
        "microbatch": engine.microbatch,
        **{split: _result(position.last_rows.get(split)) for split in ("train", "val", "test")},
        "examples": {split: batches.num_examples for split, batches in run.batches.items()},
        "watched_test": run.trainer.watch_test,
        "best": keeper.monitor.best(),
        **_with_others(throughput(engine, pace, probe, train_flops=train_flops), processor, engine),
        "seconds": keeper.seconds,
        "seconds_to_first_step": pace.to_first_step,
        "peak_memory_bytes": peak_memory(engine.device),
        "ranks": engine.ranks.size,
        "skipped_steps": position.skipped,
        "rollbacks": position.rollbacks,
        "resumed": position.lineage,
        "bit_exact": all(each["bit_exact"] for each in position.lineage),
    }


def _result(row: Row | None) -> dict[str, float | None] | None:
    return row and {"loss": row["loss"], "accuracy": None, **measures(row)}


def _with_others(rates: Row, processor: Processor, engine: Engine) -> Row:
    """The rates with what other processes took of the processor, which matters to a CPU."""
    words = processor.words(threads=threads()) if engine.device.type == "cpu" else None
    sentence = rates["bottleneck"] and "; ".join([rates["bottleneck"], *([words] if words else [])])
    return {**rates, "bottleneck": sentence, "cores_used_by_others": processor.used_by_others()}


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
        making_waits=probe.making.waits,
        asynchronous=pace.asynchronous,
    )
    return {**known, **dict(zip(words, (flops_per_second, shares["data"], sentence), strict=True))}
