"""Going on with a run: what differs from its first part, and whether the same bits will come."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dltrain import schedules
from dltrain.build import Run
from dltrain.config import stored
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container, spoken
from dltrain.run.recovery import Point
from dltrain.verbs._execution import ALONE, execution, random_digests


@dataclass
class Continuation:
    """The checkpoint to go on from (None: from the beginning), what to say, and what the summary is to remember."""

    point: Point | None
    notes: list[str]
    entry: dict[str, Any] = field(default_factory=dict)


def continuation(run: Run, point: Point | None, passed_over: Sequence[str], *, allow_changes: bool) -> Continuation:
    """Compare a run with the checkpoint it goes on from. Raises ConfigError where they do not belong together."""
    if point is None:
        return Continuation(None, ["no checkpoint was saved: the run begins again"])
    _, state = point
    if state["data_fingerprint"] != run.data_fingerprint and not allow_changes:
        raise ConfigError(f"data={run.config.data.name}: these are not the data that the run began with")
    step = state["step"]
    if step > run.trainer.epochs * len(run.batches["train"]):
        raise ConfigError(f"trainer.epochs={run.trainer.epochs}: the run has done {state['epoch']:g} already")
    changes = stored.changes(state["config"], container(run.config))
    differences = stored.changes({**ALONE, **state["execution"]}, execution(run))
    drifted = state["random"] != random_digests(run, step)
    stretched = "trainer.epochs" in changes and _rates_differ(run, step, changes["trainer.epochs"][0])
    reproducible = run.engine.device.type == "cpu" or run.config.device.deterministic
    entry = {
        "step": step,
        "passed_over": list(passed_over),
        "changes": changes,
        "execution": differences,
        "bit_exact": not (differences or drifted or stretched or stored.of_the_past(changes)) and reproducible,
    }
    notes = [*passed_over, f"going on from step {step} (epoch {state['epoch']:g})"]
    notes += [
        f"{key} is {spoken(after)} from here on, and was {spoken(before)}" for key, (before, after) in changes.items()
    ]
    if "trainer.epochs" in changes:
        notes.append(_rates(run, step, changes["trainer.epochs"][0]))
    if differences:
        told = ", ".join(f"{key} {before} then, {after} now" for key, (before, after) in differences.items())
        notes.append(f"not the same bits as without the interruption: {told}")
    elif drifted:
        notes.append("not the same bits as without the interruption: random numbers are drawn otherwise than they were")
    elif not reproducible:
        notes.append("perhaps not the same bits as without the interruption: see device.deterministic")
    return Continuation(point, notes, entry)


def _rates_differ(run: Run, step: int, epochs_before: int) -> bool:
    """Whether steps that were taken would have had other rates with the epochs of now."""
    schedule = schedules.warmup(run.schedule, warmup=run.config.schedule.warmup)
    steps = len(run.batches["train"])
    totals = (steps * epochs_before, steps * run.trainer.epochs)
    some = range(0, step, max(1, step // 100))
    return any(len({schedule(each, steps, total) for total in totals}) > 1 for each in some)


def _rates(run: Run, step: int, epochs_before: int) -> str:
    """What a schedule makes of another number of epochs."""
    schedule = schedules.warmup(run.schedule, warmup=run.config.schedule.warmup)
    steps = len(run.batches["train"])
    before, after = (schedule(step, steps, steps * epochs) for epochs in (epochs_before, run.trainer.epochs))
    if before == after:
        return f"schedule={run.config.schedule.name}: the rate of this step is the same for {run.trainer.epochs} epochs"
    return (
        f"schedule={run.config.schedule.name} is stretched over {run.trainer.epochs} epochs: "
        f"{after:.4g} of the rate at this step, where it was {before:.4g}"
    )
