"""Composing and checking a configuration: what is asked of Hydra, and what is refused before anything acts."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config import schema
from dltrain.config.folders import conf_dir, groups, nearest, options

RESOLVER = re.compile(r"\$\{[^{}]*?:")
HYDRA_OWN = {"overrides", "job", "runtime", "mode", "sweeper", "launcher", "verbose"}


class UsageError(Exception):
    """The command line cannot be read."""

    exit_code = 2


class ConfigError(Exception):
    """The command line was read, and is refused."""

    exit_code = 78


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
    """Compose and check. Raises UsageError or ConfigError, each with one line for the user."""
    folders = [conf_dir(), *map(Path, config_dirs)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    names = groups(folders)
    words = [parse(text) for text in overrides]
    chosen = [word for word in words if word.key_or_group in names]
    values = [word for word in words if word.key_or_group not in names]
    for word in words:
        if word.is_sweep_override():
            raise ConfigError(f"{word.input_line}: several values make a sweep: add -m")
    for word in chosen:
        _check_choice(word, options(word.key_or_group, folders))
    with _composer(folders, config_name) as composed:
        config = choices = composed(chosen)
        preset = choices.get("experiment") is not None or choices.hydra.runtime.choices.experiment is not None
        plain = [f"{name}={choices.hydra.runtime.choices[name] or 'null'}" for name in names if name != "experiment"]
        reference = composed(plain) if preset else choices
        examples = dict(_leaves(_container(reference, resolve=False)))
        for word in values:
            _check_key(word, examples, names)
        if values:
            config = composed([*chosen, *values])
        if preset or config_dirs or config_name != "config":
            _check_hydra(config, composed([]))
        notes = _drop_overruled(config, chosen, values, plain, composed) if preset else ()
    sweep = tuple(f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items())
    made = {name: choice for name in names if (choice := config.hydra.runtime.choices.get(name))}
    return Composition(_checked(config, examples), made, tuple(notes), sweep)


def parse(text: str) -> Override:
    """One override, by Hydra's grammar; a leading + is not needed and ignored."""
    if text.startswith("~"):
        raise ConfigError(f"{text}: nothing can be deleted; a group that may be empty takes null")
    if "=" not in text:
        raise UsageError(f"cannot read {text!r}: an override has the form key=value")
    try:
        return OverridesParser.create().parse_override(text.lstrip("+"))
    except HydraException as error:
        key, _, value = text.partition("=")
        raise UsageError(f"cannot read {text!r}: quote special characters, as in {key}='\"{value}\"'") from error


def _check_choice(word: Override, known: list[str]) -> None:
    choice = word.value()
    if choice is not None and choice not in known:
        raise ConfigError(f"unknown {word.key_or_group} {choice!r}: {nearest(str(choice), known)}")


def _check_key(word: Override, examples: dict[str, Any], names: list[str]) -> None:
    key = word.key_or_group
    if key.split(".")[0] == "hydra" or "/" in key:
        raise ConfigError(f"{word.input_line}: {key} is Hydra's and is not offered")
    if key in examples or any(example.startswith(f"{key}.") for example in examples):
        return
    same_leaf = [example for example in examples if example.rpartition(".")[2] == key.rpartition(".")[2]]
    known = same_leaf or difflib.get_close_matches(key, [*examples, *names], n=3)
    shown = [example for example in examples if example.startswith(key.partition(".")[0] + ".")] or names
    hint = f"did you mean {' or '.join(known)}?" if known else f"there are: {', '.join(shown)}"
    raise ConfigError(f"unknown key {key}: {hint}")


@contextmanager
def _composer(folders: list[Path], config_name: str) -> Iterator[Callable[[Sequence[Any]], DictConfig]]:
    """Hydra's compose over the folders; executes nothing that a configuration says."""
    main, *more = (str(folder.resolve()) for folder in folders)
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in more)}]"] if more else []

    def composed(words: Sequence[Any]) -> DictConfig:
        texts = [word if isinstance(word, str) else word.input_line for word in words]
        try:
            return hydra.compose(config_name, [*texts, *search], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(" ".join(str(error).split("\nSee")[0].split())) from error

    with hydra.initialize_config_dir(main, job_name="dltrain", version_base="1.3"):
        yield composed


def _check_hydra(config: DictConfig, ours: DictConfig) -> None:
    """Refuse what a preset or a foreign folder sets under `hydra`, sweep parameters and mode apart."""
    expected = dict(_leaves(OmegaConf.to_container(ours.hydra, resolve=False)))
    for key, value in _leaves(OmegaConf.to_container(config.hydra, resolve=False)):
        if key.split(".")[0] not in HYDRA_OWN and (key not in expected or expected[key] != value):
            raise ConfigError(f"hydra.{key}={value}: hydra's own settings are not offered")


def _drop_overruled(
    config: DictConfig,
    chosen: list[Override],
    values: list[Override],
    plain: list[str],
    composed: Callable[[Sequence[Any]], DictConfig],
) -> list[str]:
    """A group that the command line chose otherwise than the preset loses the preset's keys, as a whole."""
    preset = composed([word for word in chosen if word.key_or_group == "experiment"])
    preset_choices = preset.hydra.runtime.choices
    notes, without = [], None
    for word in chosen:
        group = word.key_or_group
        if group == "experiment" or word.value() == preset_choices[group]:
            continue
        without = without or composed([*plain, *values])
        before, after = (dict(_leaves(_container(each, resolve=False))) for each in (config, without))
        lost = [key for key in before if key.startswith(f"{group}.") and before[key] != after.get(key)]
        config[group] = without[group]
        if lost:
            notes.append(f"{group}={word.value()} was chosen: the preset's {', '.join(lost)} does not apply")
    return notes


def shown(config: DictConfig, package: str | None = None) -> str:
    """A configuration, or what stands at a dotted key of it, as YAML. Raises ConfigError."""
    node = config if package is None else OmegaConf.select(config, package)
    if node is None:
        raise ConfigError(f"--package {package}: {nearest(package or '', [str(key) for key in config])}")
    return OmegaConf.to_yaml(node)


def _checked(config: DictConfig, examples: dict[str, Any]) -> DictConfig:
    """The configuration, resolved and read-only, once every key and value fits what the YAML files show."""
    for key, value in _leaves(_container(config, resolve=False)):
        if isinstance(value, str) and RESOLVER.search(value):
            raise ConfigError(f"{key}={value}: resolvers are not offered, only ${{another.key}}")
    try:
        plain = _container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    for key, value in _leaves(plain):
        if key not in examples:
            raise ConfigError(f"unknown key {key}: {nearest(key, list(examples))}")
        if words := schema.refusal(key, value, examples[key]):
            shown = OmegaConf.to_yaml({"": value}).strip(": \n") if isinstance(value, list) else value
            raise ConfigError(f"{key}={shown}: {words}")
    result = OmegaConf.create(plain)
    OmegaConf.set_readonly(result, True)
    return result


def _container(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    container: Any = OmegaConf.to_container(own, resolve=resolve)
    return dict(container)


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; an empty mapping and None are leaves too."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
