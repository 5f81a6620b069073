"""Making a component from its YAML node: the one way in which a configuration becomes an object."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.config.folders import nearest


def make(namespace: ModuleType, node: DictConfig, **facts: Any) -> Any:
    """Call the component that `node.name` names in a namespace, with the node's keys and the facts it asks for.

    A key that is null, or that belongs to the whole group, is left to the callable. A value that its annotation
    does not allow, or a ValueError, becomes a ConfigError of one line.
    """
    group = str(node._key())
    component = find(namespace, node.name, group)
    accepted = inspect.signature(component).parameters
    given: dict[str, Any] = {str(key): value for key, value in OmegaConf.to_container(node).items() if key != "name"}  # type: ignore[union-attr]
    unknown = [key for key in given if key not in accepted and key not in schema.keys(group)]
    if unknown:
        raise ConfigError(f"{group}={node.name}: {', '.join(unknown)} is no argument of it")
    keywords = {key: value for key, value in given.items() if key in accepted and value is not None}
    hints = _hints(component)
    for key, value in keywords.items():
        if words := schema.misfit(value, hints.get(key)):
            raise ConfigError(f"{group}.{key}={value}: {words}")
    wanted = {key: value for key, value in facts.items() if key in accepted}
    return worded(f"{group}={node.name}", partial(component, **{**keywords, **wanted}))


def _hints(component: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a callable's arguments; none where they name what exists for a type checker alone."""
    called = component.func if isinstance(component, partial) else component
    try:
        return get_type_hints(called.__init__ if inspect.isclass(called) else called)
    except NameError:
        return {}


def find(namespace: ModuleType, name: str, group: str) -> Callable[..., Any]:
    """A public callable of a namespace, or one that an installed package offers as an entry point of its name."""
    if name in namespace.__all__:
        return getattr(namespace, name)  # type: ignore[no-any-return]
    installed = entry_points(group=namespace.__name__)
    for entry in installed:
        if entry.name == name:
            try:
                return entry.load()  # type: ignore[no-any-return]
            except ImportError as error:
                raise ConfigError(f"{group}.name={name}: the installed package cannot be imported: {error}") from error
    raise ConfigError(f"{group}.name={name}: {nearest(name, [*namespace.__all__, *installed.names])}")


def worded(where: str, action: Callable[[], Any]) -> Any:
    """Run an action; a ValueError is the user's mistake, said in one line."""
    try:
        return action()
    except ValueError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def rehearse(
    model: nn.Module, shape: tuple[int, ...], *, microbatch: int | None, batch_size: int, num_classes: int
) -> None:
    """Train a copy on blank images of a shape, so that what does not fit is refused before any data are decoded.

    Two examples stand for any number above one. (On the meta device this would import torch's compiler.)
    """
    key, examples = ("trainer.microbatch", microbatch) if microbatch else ("data.batch_size", batch_size)
    where = f"{key}={examples}: the model cannot train on that many images of {'x'.join(map(str, shape))}"
    blank = torch.zeros(min(examples, 2), *shape)
    with torch.no_grad():
        try:
            logits = worded(where, partial(copy.deepcopy(model).train(), blank))
        except RuntimeError as error:
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    if logits.shape != (expected := (len(blank), num_classes)):
        raise ConfigError(f"the model makes {tuple(logits.shape)} of {len(blank)} images, and must make {expected}")
