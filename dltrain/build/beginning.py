"""Weights that a run begins with in place of the initializer's, and those that stay as they are."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from dltrain import initializers
from dltrain.components import worded
from dltrain.config.errors import ConfigError
from dltrain.run import weights
from dltrain.run.checkpoint import weights_sha256

MOST_NAMES = 8


def begin(model: nn.Module, config: DictConfig, *, restored: bool) -> tuple[list[str], str | None]:
    """Give a model the weights that the configuration names and freeze what it says.

    Returns what is to be told, and the SHA-256 (hex) of the weights that were taken, None where none were. A run that
    is `restored` from its checkpoint needs no other weights. Raises ConfigError where nothing fits, and RunError where
    there are none.
    """
    notes, sha256 = ([], None) if restored else _adopt(model, config)
    frozen = worded("init.freeze", partial(initializers.freeze, model, config.init.freeze))
    if frozen:
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        notes.append(f"init.freeze: {_listed(frozen)} stay as they are; {trained:,} parameters are trained")
    return notes, sha256


def _adopt(model: nn.Module, config: DictConfig) -> tuple[list[str], str | None]:
    """Take from a run or a file what fits."""
    of_run, file = config.init.name == "run", config.model.weights
    if of_run and file:
        raise ConfigError(f"init=run and model.weights={file} both say which weights to begin with; choose one")
    if of_run:
        return _taken(model, f"init.path={config.init.path}", weights.of_run(config.init.path, config.outputs_dir))
    return _taken(model, f"model.weights={file}", weights.of_file(Path(file))) if file else ([], None)


def _taken(model: nn.Module, where: str, given: Mapping[str, Tensor]) -> tuple[list[str], str]:
    adoption, own = initializers.adopt(model, given), model.state_dict()
    if all(own[name].ndim < 2 for name in adoption.taken):  # a bias of the same length says nothing
        raise ConfigError(f"{where}: nothing fits: the model has {_shapes(own)}; these weights are {_shapes(given)}")
    misfits = [f"{name} ({_shape(given[name])} there, {_shape(own[name])} here)" for name in adoption.misfitting]
    parts = {"missing": adoption.missing, "misfitting": misfits, "extra": adoption.extra}
    told = [f"{kind}: {_listed(names)}" for kind, names in parts.items() if names]
    note = "; ".join([f"{where}: {len(adoption.taken)} of {len(own)} tensors taken", *told])
    return [note], weights_sha256({name: given[name] for name in adoption.taken})


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return _listed([f"{name} {_shape(tensor)}" for name, tensor in tensors.items()], most=3)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _listed(names: Sequence[str], *, most: int = MOST_NAMES) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
