"""Composing and checking a configuration: what is asked of Hydra, and what is refused before anything acts."""

import difflib
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
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dltrain.config import schema
from dltrain.config.errors import ConfigError, UsageError
from dltrain.config.folders import conf_dir, groups, nearest, options
from dltrain.config.tree import container, leaves, spoken, texts

EMPTY = {"logger", "experiment"}
REFERENCE = re.compile(r"\$\{[\w.]+\}")
HYDRA_MAY_DIFFER = ("overrides.", "job.override_dirname", "job.config_name", "runtime.", "mode", "sweeper.params")


@dataclass(frozen=True)
class Composition:
    """A checked configuration, the options chosen, what is to be said, and the sweep that a preset asks for."""

    config: DictConfig
    choices: dict[str, str]
    notes: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()


def compose(
    overrides: Sequence[str] = (), *, config_name: str = "config", config_dirs: Sequence[str | Path] = ()
) -> Composition:
    """Compose and check. Raises UsageError or ConfigError, each with one line for the user.

    Hydra composes the choices; the values are set in what it made, and so win over a preset's.
    """
    folders = [conf_dir(), *map(Path, config_dirs)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    names = groups(folders)
    words = [parse(text) for text in overrides]
    for word in words:
        if word.is_sweep_override():
            raise ConfigError(f"{word.input_line}: several values make a sweep: add -m")
    chosen = {word.key_or_group: word.value() for word in words if word.key_or_group in names}
    for group, choice in chosen.items():
        _check_choice(group, choice, options(group, folders))
    with _composer(folders) as composed:
        config = composed(_written(chosen), config_name)
        _check_references(config)
        choices = {name: choice for name in names if (choice := config.hydra.runtime.choices.get(name))}
        reference = config
        if config_dirs or config_name != "config" or "experiment" in choices:
            reference = composed(_written({name: choices[name] for name in choices if name != "experiment"}))
        notes, sweep = _overrule(config, reference, chosen, composed, choices.get("experiment"))
    if reference is not config:
        _check_hydra(config)
    examples = {key: value for key, value in leaves(container(reference)) if schema.offered(key)}
    for word in words:
        if word.key_or_group not in names:
            check_key(word.key_or_group, examples, names)
            update(config, word)
    given = {word.key_or_group for word in words}
    asked = tuple(f"{key}={value}" for key, value in sweep.items() if key not in given)
    return Composition(check(config, examples), choices, tuple(notes), asked)


def parse(text: str) -> Override:
    """One override, by Hydra's grammar; a leading + is not needed and ignored."""
    if text.startswith("~"):
        raise ConfigError(f"{text}: nothing can be deleted; a group that may be empty takes null")
    key, equals, value = text.lstrip("+").partition("=")
    if not key or not equals:
        raise UsageError(f"cannot read {text!r}: an override has the form key=value")
    if "@" in key:
        raise ConfigError(f"{text}: a group has one place, so there is no @")
    try:
        return OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException as error:
        raise UsageError(f"cannot read {text!r}: quote special characters, as in {key}='\"{value}\"'") from error


def update(config: DictConfig, word: Override) -> None:
    """Set a key. Raises ConfigError where it cannot hold such a value."""
    try:
        OmegaConf.update(config, word.key_or_group, word.value())
    except OmegaConfBaseException as error:
        raise ConfigError(f"{word.input_line}: {str(error).splitlines()[0]}") from error


def _check_choice(group: str, choice: Any, known: list[str]) -> None:
    if choice not in known and not (choice is None and group in EMPTY):
        raise ConfigError(f"unknown {group} {spoken(choice)!r}: {nearest(str(choice), known)}")


def check_key(key: str, examples: dict[str, Any], names: list[str]) -> None:
    """Refuse a key that no YAML file has, naming the nearest that one has."""
    group, dot, leaf = key.rpartition(".")
    if key.split(".")[0] == "hydra" or "/" in key:
        raise ConfigError(f"{key}: Hydra's own settings are not offered")
    if key in examples or any(example.startswith(f"{key}.") for example in examples):
        return
    below = [example for example in examples if example.startswith(f"{group}.")]
    if group in names and not below:
        raise ConfigError(f"unknown key {key}: {group} is null; choose one first, as in {group}=NAME")
    near = difflib.get_close_matches(key, examples if dot else [*examples, *names], n=3)
    same = [example for example in examples if example.rpartition(".")[2] == leaf]
    known = same if 0 < len(same) <= 3 else near
    hint = f"did you mean {' or '.join(known)}?" if known else f"there are: {', '.join(below or names)}"
    raise ConfigError(f"unknown key {key}: {hint}")


@contextmanager
def _composer(folders: list[Path]) -> Iterator[Callable[..., DictConfig]]:
    """Hydra's compose over the folders; executes nothing that a configuration says."""
    main, *more = (folder.resolve() for folder in folders)

    def composed(words: Sequence[str], config_name: str = "config") -> DictConfig:
        try:
            return hydra.compose(config_name, [*words], return_hydra_config=True)
        except Exception as error:  # Hydra's, OmegaConf's and YAML's have no base of their own in common
            raise ConfigError(" ".join(str(error).split("\nSee")[0].split())) from error

    with hydra.initialize_config_dir(str(main), job_name="dltrain", version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        for folder in more:  # as Hydra's own --config-dir
            before_last = SearchPathQuery(provider="schema")
            loader.get_search_path().prepend("command-line", f"file://{folder}", anchor=before_last)
        loader.repository.initialize_sources(loader.get_search_path())
        yield composed


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
) -> tuple[list[str], dict[str, Any]]:
    """A group that the command line chose otherwise than the preset loses the preset's keys, as a whole.

    Returns notes, and what is left of the preset's sweep parameters.
    """
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper)
    sweep = sweeper["params"] or {}
    others = {group: choice for group, choice in chosen.items() if group != "experiment"}
    if preset is None or not others:
        return [], sweep
    alone = composed([f"experiment={preset}"]).hydra.runtime.choices
    notes = []
    for group, choice in others.items():
        if choice == alone.get(group):
            continue
        before, after = (dict(leaves(container(each))) for each in (config, reference))
        lost = [key for key in before if key.startswith(f"{group}.") and before[key] != after.get(key)]
        swept = [key for key in sweep if key.startswith(f"{group}.")]
        sweep = {key: value for key, value in sweep.items() if key not in swept}
        with open_dict(config):
            config.pop(group, None)
            config.update({group: reference[group]} if group in reference else {})
        if lost or swept:
            notes.append(f"{group}={choice} was chosen: the preset's {', '.join([*lost, *swept])} does not apply")
    return notes, sweep


def shown(config: DictConfig, package: str | None = None) -> str:
    """A configuration, or what stands at a dotted key of it, as YAML. Raises ConfigError."""
    plain = container(config)
    known = {**dict(leaves(plain)), **plain}
    if package is not None and package not in known:
        raise ConfigError(f"--package {package}: there is nothing; there are: {', '.join(plain)}")
    node = plain if package is None else known[package]
    return OmegaConf.to_yaml(node) if isinstance(node, dict | list) else f"{spoken(node)}\n"


def _check_references(config: DictConfig) -> None:
    """Refuse resolvers, before anything is resolved; a reference inside a reference could make one."""
    for key, value in leaves(container(config)):
        if any("${" in REFERENCE.sub("", text) for text in texts(value)):
            raise ConfigError(f"{key}={spoken(value)}: resolvers are not offered, only ${{another.key}}")


def check(config: DictConfig, examples: dict[str, Any]) -> DictConfig:
    """The configuration, resolved and read-only, once every key and value fits what the YAML files show."""
    _check_references(config)
    try:
        plain = container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    for group, node in plain.items():
        if group in schema.COMPONENTS and node and "name" not in node:
            raise ConfigError(f"{group}: its YAML file has no name")
    for key, value in leaves(plain):
        if key not in examples:
            raise ConfigError(f"unknown key {key}: {nearest(key, list(examples))}")
        if any("${" in text for text in texts(value)):
            raise ConfigError(f"{key}={spoken(value)}: a value cannot make a reference")
        if "???" in texts(value):
            raise ConfigError(f"{key}={spoken(value)}: give it a value")
        if words := schema.refusal(key, value, examples[key]):
            raise ConfigError(f"{key}={spoken(value)}: {words}")
    result = OmegaConf.create(plain)
    OmegaConf.set_readonly(result, True)
    return result
