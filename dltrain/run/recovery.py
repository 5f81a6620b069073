"""Which checkpoint a run goes on from."""

from pathlib import Path
from typing import Any

from torch import Tensor

from dltrain.run import checkpoint
from dltrain.run.folder import RunError
from dltrain.run.record import FILE

Tensors = dict[str, dict[str, Tensor]]
Point = tuple[Tensors, dict[str, Any]]


def newest(folder: Path) -> tuple[Point | None, list[str]]:
    """Tensors and state of the newest checkpoint that verifies, and why newer ones were passed over.

    None where a run was killed before its first one. Where the best weights of all are damaged, the newest is used and
    they are forgotten. Raises RunError (66) where there are some and none serves.
    """
    passed_over: list[str] = []
    without_best: tuple[Point, list[str]] | None = None
    for path in reversed(checkpoint.steps(folder / "checkpoints")):
        try:
            tensors, state = checkpoint.load(path)
        except RunError as error:
            passed_over.append(f"{path.name} passed over: {error}")
            continue
        if "optim" not in tensors:  # the best weights alone
            continue
        if state["record_bytes"] > _size(folder / FILE):
            passed_over.append(f"{path.name} passed over: {FILE} has lost rows that came before it")
            continue
        damage = _damage_of_best(path, state)
        if damage is None:
            return (tensors, state), passed_over
        without_best = without_best or (_forgetting_best(tensors, state), [*passed_over, f"best forgotten: {damage}"])
        passed_over.append(f"{path.name} passed over: {damage}")
    if without_best:
        return without_best
    if passed_over:
        raise RunError(f"{folder}: no checkpoint that a run could go on from; {'; '.join(passed_over)}")
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


def _forgetting_best(tensors: Tensors, state: dict[str, Any]) -> Point:
    """A checkpoint without its best step."""
    return tensors, {**state, "best": None, "monitor": {**state["monitor"], "step": None, "value": None}}


def best_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """The weights of the best step. Raises RunError where its checkpoint is missing or damaged."""
    tensors, _ = checkpoint.load(folder / "checkpoints" / checkpoint.folder_name(step))
    return tensors.get("ema", tensors["model"])


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
