"""Which checkpoint a run goes on from."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.run import checkpoint
from dltrain.run.folder import RunError
from dltrain.run.record import FILE, whole_lines

Tensors = dict[str, dict[str, Tensor]]
Point = tuple[Tensors, dict[str, Any]]


def newest(folder: Path, *, allow_lost_rows: bool = False) -> tuple[Point | None, list[str]]:
    """Tensors and state of the newest checkpoint that verifies, and why newer ones were passed over.

    None where a run was killed before its first one. Where the best weights of all are damaged, the newest is used and
    they are forgotten; where the record of all has lost rows, too, if that is allowed. Raises RunError (66) where there
    are checkpoints and none serves.
    """
    passed_over: list[str] = []
    poorer: list[tuple[bool, Point, list[str]]] = []
    for path in reversed(checkpoint.steps(folder / "checkpoints")):
        try:
            tensors, state = checkpoint.load(path)
        except RunError as error:
            passed_over.append(f"{path.name} passed over: {error}")
            continue
        if "optim" not in tensors:  # the best weights alone
            continue
        losses: list[str] = []
        if rows_lost := state["record_bytes"] > (left := whole_lines(folder)):
            losses.append(f"{FILE} has lost rows that came before it")
            state = {**state, "record_bytes": left}
        if damage := _damage_of_best(path, state):
            losses.append(f"the best weights are gone: {damage}")
            state = {**state, "best": None, "monitor": {**state["monitor"], "step": None, "value": None}}
        if not losses:
            return (tensors, state), passed_over
        told = "; ".join(losses)
        poorer.append((rows_lost, (tensors, state), [*passed_over, f"{path.name} is used although {told}"]))
        passed_over.append(f"{path.name} passed over: {told}")
    for rows_lost, point, notes in poorer:
        if allow_lost_rows or not rows_lost:
            return point, notes
    if passed_over:
        hint = ["dltrain resume --allow-changes goes on without the rows"] * bool(poorer)
        reasons = "; ".join([*passed_over, *hint])
        raise RunError(f"{folder}: no checkpoint that a run could go on from; {reasons}")
    return None, []


def _damage_of_best(path: Path, state: dict[str, Any]) -> str | None:
    """Why the best weights that a checkpoint speaks of cannot be had."""
    if state["best"] is None:
        return None
    try:
        checkpoint.verify(path.with_name(checkpoint.folder_name(state["best"]["step"])))
    except RunError as error:
        return str(error)
    return None


def best_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of the best step. Raises RunError where its checkpoint is missing or damaged."""
    tensors, _ = checkpoint.load(folder / "checkpoints" / checkpoint.folder_name(step))
    return tensors.get("ema", tensors["model"])
