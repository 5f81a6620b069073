"""Making a component from its YAML node: the one way in which a configuration becomes an object."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from dltrain.config import schema
from dltrain.config.errors import ConfigError
from dltrain.config.folders import nearest


def make(namespace: ModuleType, node: DictConfig, **facts: Any) -> Any:
    """Call the component that `node.name` names in a namespace, with the node's keys and the facts it asks for.

    A key that is null, or that belongs to the whole group, is left to the callable. A value that its annotation
    does not allow, or a ValueError, becomes a ConfigError of one line.
    """
    place = str(node._get_full_key(None))
    group = place.partition(".")[0]
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
            raise ConfigError(f"{place}.{key}={value}: {words}")
    wanted = {key: value for key, value in facts.items() if key in accepted}
    _check_facts(f"{group}={node.name}", accepted, {**keywords, **wanted})
    return worded(f"{group}={node.name}", partial(component, **{**keywords, **wanted}))


def _check_facts(where: str, accepted: Mapping[str, inspect.Parameter], given: Collection[str]) -> None:
    """Refuse a component that must know what these data do not have."""
    required = (
        name for name, each in accepted.items() if each.default is each.empty and each.kind is each.KEYWORD_ONLY
    )
    if lacking := [name for name in required if name not in given]:
        raise ConfigError(f"{where} needs {' and '.join(lacking)}, which these data do not have; choose another")


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
