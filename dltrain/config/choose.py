"""What Hydra makes of the choices of groups, of which it executes nothing."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from dltrain.config import schema
from dltrain.config.errors import ConfigError, UnknownName
from dltrain.config.folders import SEVERAL, conf_dir, nearest, options
from dltrain.config.tree import container, leaves, own, spoken, texts

EMPTY = {"logger", "experiment"}
REFERENCE = re.compile(r"\$\{[\w.]+\}")
HYDRAS_GROUPS = {"hydra/sweeper": "sweep: {search: optuna}", "hydra/launcher": "sweep: {launcher: submitit_slurm}"}
HYDRA_MAY_DIFFER = ("overrides.", "job.override_dirname", "job.config_name", "runtime.", "mode", "sweeper.params")


@dataclass(frozen=True)
class Chosen:
    """What Hydra made of the choices of groups: a composition whose values are not set and checked yet.

    `lost` are the keys of a preset that a choice takes away, by the choice.
    """

    config: DictConfig
    choices: dict[str, str]
    lost: dict[str, list[str]]
    sweep: dict[str, Any]
    examples: dict[str, Any]


def choose(chosen: dict[str, Any], names: list[str], folders: list[Path], config_name: str) -> Chosen:
    """Have Hydra compose the choices of groups. Raises ConfigError."""
    for group, choice in chosen.items():
        several = group in SEVERAL and isinstance(choice, list)
        for each in map(spoken, choice) if several else [choice]:
            _check_choice(group, each, options(group, folders))
    chosen = {group: _as_one(choice) for group, choice in chosen.items()}
    with _composer(folders) as composed:
        config = composed(_written(chosen), config_name)
        check_references(container(config))
        choices = {name: choice for name in names if (choice := _choice(config, name, chosen))}
        reference = config
        if len(folders) > 1 or config_name != "config" or "experiment" in choices:
            reference = composed(_written({name: choices[name] for name in choices if name != "experiment"}))
        lost, sweep = _overrule(config, reference, chosen, composed, choices.get("experiment"))
    if reference is not config:
        _check_hydra(config)
    examples = {key: value for key, value in leaves(container(reference)) if schema.offered(key)}
    return Chosen(own(config), choices, lost, sweep, examples)


def _check_choice(group: str, choice: Any, known: list[str]) -> None:
    if choice not in known and not (choice is None and group in EMPTY):
        raise UnknownName(f"unknown {group} {spoken(choice)!r}: {nearest(str(choice), known)}")


def _as_one(choice: Any) -> Any:
    """A list of choices as Hydra writes it; without any, none is chosen."""
    if not isinstance(choice, list):
        return choice
    return f"[{','.join(choice)}]" if len(choice) > 1 else next(iter(choice), None)


def _choice(config: DictConfig, group: str, chosen: dict[str, Any]) -> Any:
    """What the command line or else a preset chose of a group. Raises ConfigError.

    Of several at once Hydra tells nothing, but each has a node, as has what a preset says of one not chosen.
    """
    if group not in SEVERAL:
        return config.hydra.runtime.choices.get(group)
    nodes = config.get(group) or {}
    for name, node in nodes.items():
        if not isinstance(node, DictConfig):
            raise ConfigError(f"{group}.{name}: an option's file begins with the line '# @package {group}.NAME'")
    return chosen[group] if group in chosen else _as_one([str(name) for name in nodes])


@contextmanager
def _composer(folders: list[Path]) -> Iterator[Callable[..., DictConfig]]:
    """Hydra's compose over the folders; executes nothing that a configuration says."""
    main, *more = (folder.resolve() for folder in folders)

    def composed(words: Sequence[str], config_name: str = "config") -> DictConfig:
        try:
            return hydra.compose(config_name, [*words], return_hydra_config=True)
        except Exception as error:  # Hydra's, OmegaConf's and YAML's have no base of their own in common
            raise ConfigError(_worded(error)) from error

    with hydra.initialize_config_dir(str(main), job_name="dltrain", version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        for folder in more:  # as Hydra's own --config-dir
            before_last = SearchPathQuery(provider="schema")
            loader.get_search_path().prepend("command-line", f"file://{folder}", anchor=before_last)
        loader.repository.initialize_sources(loader.get_search_path())
        yield composed


def _worded(error: Exception) -> str:
    """One line; for what Hydra looks for among its own groups, how it is chosen here."""
    text = " ".join(str(error).split("\nSee")[0].split())
    for group, right in HYDRAS_GROUPS.items():
        if f"Could not find '{group}/" in text:
            return f"'override /{group}' among a preset's defaults is not offered: let the preset say {right}"
    return text


def _written(choices: dict[str, Any]) -> list[str]:
    """Choices as Hydra wants them written; it knows no null, but a deletion."""
    return [f"~{group}" if choice is None else f"{group}={choice}" for group, choice in choices.items()]


def _check_hydra(config: DictConfig) -> None:
    """Refuse what a preset or a foreign folder sets under `hydra`, sweep parameters and mode apart."""
    expected = _untouched_hydra(conf_dir())
    for key, value in leaves(OmegaConf.to_container(config.hydra)):
        if not key.startswith(HYDRA_MAY_DIFFER) and (key not in expected or expected[key] != value):
            raise ConfigError(f"hydra.{key}={spoken(value)}: Hydra's own settings are not offered")


@cache
def _untouched_hydra(main: Path) -> dict[str, Any]:
    with _composer([main]) as composed:
        return dict(leaves(OmegaConf.to_container(composed([]).hydra)))


def _overrule(
    config: DictConfig,
    reference: DictConfig,
    chosen: dict[str, Any],
    composed: Callable[..., DictConfig],
    preset: str | None,
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """A group that the command line chose otherwise than the preset loses the preset's keys, as a whole.

    Returns these, by the choice, and what is left of the preset's sweep parameters.
    """
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper)
    sweep = sweeper["params"] or {}
    others = {group: choice for group, choice in chosen.items() if group != "experiment"}
    if preset is None or not others:
        return {}, sweep
    alone = composed([f"experiment={preset}"])
    all_lost = {}
    for group, choice in others.items():
        if choice == _choice(alone, group, {}):
            continue
        before, after = (dict(leaves(container(each))) for each in (config, reference))
        lost = [key for key in before if key.startswith(f"{group}.") and before[key] != after.get(key)]
        swept = [key for key in sweep if key.startswith(f"{group}.")]
        sweep = {key: value for key, value in sweep.items() if key not in swept}
        with open_dict(config):
            config.pop(group, None)
            config.update({group: reference[group]} if group in reference else {})
        if lost or swept:
            all_lost[f"{group}={choice}"] = [*lost, *swept]
    return all_lost, sweep


def check_references(plain: dict[str, Any]) -> None:
    """Refuse resolvers, before anything is resolved; a reference inside a reference could make one."""
    for key, value in leaves(plain):
        if any("${" in REFERENCE.sub("", text) for text in texts(value)):
            raise ConfigError(f"{key}={spoken(value)}: resolvers are not offered, only ${{another.key}}")
