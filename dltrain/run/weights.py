"""Weights that are there already: of a run, or in a file that the user has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dltrain.run import checkpoint
from dltrain.run.folder import RunError, find

WRAPPINGS = ("state_dict", "model")  # under which training programs keep the weights beside other things


def chosen(folder: Path, which: str = "best") -> Path:
    """A checkpoint of a run folder that verifies: the best step's where there is one, else the newest.

    `which` is `best`, `last` for the newest, or a step's number. Raises RunError.
    """
    parent = folder / "checkpoints"
    sound = [path for path in reversed(checkpoint.steps(parent)) if checkpoint.is_sound(path)]
    if not sound:
        raise RunError(f"{parent} holds no checkpoint that verifies")
    if which.isdecimal():
        found = [path for path in sound if checkpoint.number(path) == int(which)]
        if not found:
            steps = ", ".join(str(checkpoint.number(path)) for path in reversed(sound))
            raise RunError(f"{parent} holds no checkpoint of step {which} that verifies; there are: {steps}")
        return found[0]
    if which == "last":
        return sound[0]
    best = json.loads((sound[0] / "state.json").read_text())["best"]
    named = parent / checkpoint.folder_name(best["step"]) if best else sound[0]
    return named if named in sound else sound[0]


def evaluated(tensors: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights that were evaluated, of a checkpoint's tensors: the averaged ones where there are any."""
    return tensors.get("ema", tensors["model"])


def of_run(name: str, outputs_dir: str) -> dict[str, Tensor]:
    """The weights of a run, a folder or a name below the outputs directory. Raises RunError."""
    tensors, _ = checkpoint.load(chosen(find(name, outputs_dir)))
    return evaluated(tensors)


def of_file(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a safetensors file or a state_dict that torch saved; of these no code is run.

    Raises RunError (66).
    """
    if not path.is_file():
        raise RunError(f"{path}: there is no such file of weights")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # a foreign file can make anything of a reader, whose advice would be to run its code
        why = "neither safetensors nor a state_dict of torch's"
        raise RunError(f"{path} holds no weights that can be read: {why}") from error
    for wrapping in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RunError(f"{path} holds no tensors by name")
    return tensors


def _unpickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
