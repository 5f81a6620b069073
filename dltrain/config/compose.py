"""Composing and checking a configuration: what is refused before anything acts."""

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dltrain.config import schema
from dltrain.config.choose import REFERENCE, Chosen, check_references, choose
from dltrain.config.errors import ConfigError, UnknownName, UsageError
from dltrain.config.folders import SEVERAL, conf_dir, groups, nearest
from dltrain.config.meant import MOST_OPTIONS, meant_keys, options_with
from dltrain.config.paths import anchor
from dltrain.config.tree import container, leaves, spoken, texts

HYDRAS_NAMES = {"hydra/sweeper": "sweep.search", "hydra/launcher": "sweep.launcher"}


@dataclass(frozen=True)
class Composition:
    """A checked configuration, the options chosen, what is to be said, and the sweep that a preset asks for.

    `command` are the words that made it, `usual` the values of the options' YAML files without them or a preset.
    """

    config: DictConfig
    choices: dict[str, str]
    notes: tuple[str, ...] = ()
    sweep: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    usual: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self) -> dict[str, Any]:
        """The keys whose values are other than the YAML files', with the values there."""
        found: dict[str, Any] = {}
        for key, value in leaves(container(self.config)):
            usual = self.usual.get(key, value)
            if isinstance(usual, str) and REFERENCE.fullmatch(usual):
                usual = self.usual.get(usual[2:-1])
            found |= {} if usual == value else {key: usual}
        return found


def compose(overrides: Sequence[str] = (), **where: Any) -> Composition:
    """Compose and check; `where` is that of `compose_all`. Raises UsageError or ConfigError, one line for the user.

    Hydra composes the choices; the values are set in what it made, and so win over a preset's.
    """
    composition = compose_all([overrides], **where)[0]
    if isinstance(composition, ConfigError):
        raise composition
    return composition


def compose_all(
    jobs: Iterable[Sequence[str]],
    *,
    config_name: str = "config",
    config_dirs: Sequence[str | Path] = (),
    directory: str | Path | None = None,
) -> list[Composition | ConfigError]:
    """Compose each list of overrides, or tell why it is refused; Hydra is asked once for the same choices.

    Relative paths are below `directory`, by default that of the process.
    Raises UsageError, and UnknownName where one names what there is not.
    """
    folders = [conf_dir(), *map(Path, config_dirs)]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    names, known = groups(folders), dict[Any, Chosen]()
    flags = [part for folder in config_dirs for part in ("--config-dir", str(folder))]
    flags += ["--config-name", config_name] if config_name != "config" else []
    results: list[Composition | ConfigError] = []
    for overrides in jobs:
        words = [parse(text) for text in overrides]
        try:
            _check_single(words)
            chosen = {word.key_or_group: word.value() for word in words if word.key_or_group in names}
            key = repr(chosen)
            if key not in known:
                known[key] = choose(chosen, names, folders, config_name)
            composition = _set(known[key], words, names, Path(directory or Path.cwd()))
            results.append(replace(composition, command=(*flags, *composition.command)))
        except UnknownName:
            raise
        except ConfigError as error:
            results.append(error)
    return results


def _check_single(words: Sequence[Override]) -> None:
    for word in words:
        if word.is_sweep_override():
            raise ConfigError(f"{word.input_line}: several values make a sweep: add -m{_instead(word)}")


def _instead(word: Override) -> str:
    """What else several values may have been meant to be: a list, or a decimal."""
    key, _, value = (word.input_line or "").partition("=")
    if schema.refusal(key, [0], None) is None and schema.refusal(key, 0, None):
        return f", or write a list in brackets: {key}=[{value}]"
    comma = re.fullmatch(r"(-?0),(\d+)", value)
    return f", or write a decimal with a point: {key}={comma[1]}.{comma[2]}" if comma else ""


def _set(chosen: Chosen, words: Sequence[Override], names: list[str], directory: Path) -> Composition:
    """Set the values that the command line gives, and check all."""
    config = copy.deepcopy(chosen.config)
    for word in words:
        if word.key_or_group not in names:
            check_key(word, chosen.examples, names)
            update(config, word)
    given = {word.key_or_group for word in words}
    asked = tuple(f"{key}={value}" for key, value in chosen.sweep.items() if key not in given)
    checked, command = check(config, chosen.examples, directory), tuple(str(word.input_line) for word in words)
    return Composition(checked, chosen.choices, tuple(_notes(chosen.lost, given)), asked, command, chosen.examples)


def _notes(lost: Mapping[str, Sequence[str]], given: Collection[str]) -> Iterator[str]:
    """What of a preset does not apply, but for the keys that the command line gives."""
    for choice, keys in lost.items():
        if missed := [key for key in keys if key not in given]:
            do = "does" if len(missed) == 1 else "do"
            yield f"{choice} was chosen: the preset's {', '.join(missed)} {do} not apply"


@lru_cache(maxsize=4096)  # jobs of a sweep have most of their words in common
def parse(text: str) -> Override:
    """One override, by Hydra's grammar; a leading + is not needed and ignored."""
    if text.startswith("~"):
        raise ConfigError(f"{text}: nothing can be deleted; a group that may be empty takes null")
    key, equals, value = text.lstrip("+").partition("=")
    key = HYDRAS_NAMES.get(key, key)
    if not key or not equals:
        raise UsageError(f"cannot read {text!r}: an override has the form key=value")
    if "@" in key:
        raise ConfigError(f"{text}: a group has one place, so there is no @")
    try:
        return OverridesParser.create().parse_override(f"{key}={value}")
    except HydraException as error:
        if value.count("[") + value.count("{") > value.count("]") + value.count("}"):
            how = f"a bracket stays open; quote the whole of it, as in '{key}=[...]', or the shell splits it at spaces"
            raise UsageError(f"cannot read {text!r}: {how}") from error
        how = f"quote special characters, as in {key}='\"{value}\"'"
        if value.endswith(",") and "=" not in value:
            how = f"a comma ends it, and no value follows: {key}={value[:-1]}"
        raise UsageError(f"cannot read {text!r}: {how}") from error


def update(config: DictConfig, word: Override) -> None:
    """Set a key. Raises ConfigError where it cannot hold such a value."""
    try:
        OmegaConf.update(config, word.key_or_group, word.value())
    except OmegaConfBaseException as error:
        raise ConfigError(f"{word.input_line}: {str(error).splitlines()[0]}") from error


def check_key(word: Override, examples: dict[str, Any], names: list[str]) -> None:
    """Refuse a key that no YAML file has, naming the nearest that one has."""
    key, value = word.key_or_group, (word.input_line or "").partition("=")[2]
    group = key.rpartition(".")[0]
    if key.split(".")[0] == "hydra" or "/" in key:
        raise UnknownName(f"{key}: Hydra's own settings are not offered; a run is put by outputs_dir= and name=")
    if key in examples or any(example.startswith(f"{key}.") for example in examples):
        return
    first = key.partition(".")[0] if key.startswith(tuple(f"{several}." for several in SEVERAL)) else group
    below = [example for example in examples if example.startswith(f"{first}.")]
    if first in names and not below:
        raise UnknownName(f"unknown key {key}: {first} is null; choose one first, as in {first}=NAME")
    if group in names and (having := options_with(key)):
        raise UnknownName(f"unknown key {key}: what is chosen has none; try {' or '.join(having[:MOST_OPTIONS])}")
    known = meant_keys(key, [*examples, *names])
    meant = [f"{each}={_form(examples.get(each), value)}" for each in known]
    hint = f"did you mean {' or '.join(meant)}?" if meant else f"there are: {', '.join(below or names)}"
    raise UnknownName(f"unknown key {key}: {hint}")


def _form(example: Any, value: str) -> str:
    """A value as it was given, or a list as a YAML file has it where there must be one."""
    return spoken(example).replace(", ", ",") if isinstance(example, list) and not value.startswith("[") else value


def shown(config: DictConfig, package: str | None = None) -> str:
    """A configuration, or what stands at a dotted key of it, as YAML. Raises ConfigError."""
    plain = container(config)
    known = {**dict(leaves(plain)), **plain}
    if package is not None and package not in known:
        raise ConfigError(f"--package {package}: there is nothing; there are: {', '.join(plain)}")
    node = plain if package is None else known[package]
    return OmegaConf.to_yaml(node) if isinstance(node, dict | list) else f"{spoken(node)}\n"


def check(config: DictConfig, examples: dict[str, Any], directory: Path) -> DictConfig:
    """The configuration, made resolved and read-only once every key and value fits what the YAML files show.

    Relative paths become those below the directory.
    """
    plain = container(config)
    check_references(plain)
    if any("${" in text for text in texts(plain)):
        try:
            plain = container(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
        config = OmegaConf.create(plain)
    for group in schema.COMPONENTS & plain.keys():
        node = plain[group] or {}
        for each in node.values() if group in SEVERAL else [node]:
            if each and "name" not in each:
                raise ConfigError(f"{group}: its YAML file has no name")
    for key, value in leaves(plain):
        _check_value(key, value, examples)
    anchor(config, directory)
    OmegaConf.set_struct(config, None)
    OmegaConf.set_readonly(config, True)
    return config


def _check_value(key: str, value: Any, examples: dict[str, Any]) -> None:
    if key not in examples:
        raise ConfigError(f"unknown key {key}: {nearest(key, list(examples))}")
    if any("${" in text for text in texts(value)):
        raise ConfigError(f"{key}={spoken(value)}: a value cannot make a reference")
    if "???" in texts(value):
        raise ConfigError(f"{key}={spoken(value)}: give it a value")
    if words := schema.refusal(key, value, examples[key]):
        raise ConfigError(f"{key}={spoken(value)}: {words}")
