"""The configuration of a run that is there already: read back, and what of it may change while the run goes on."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from dltrain.config import schema
from dltrain.config.compose import Composition, check, check_key, compose, parse, update
from dltrain.config.errors import ConfigError
from dltrain.config.tree import container, leaves

# What may change between two parts of a run: nothing of it has shaped the steps that were taken.
FREE = (
    "trainer.epochs", "trainer.early_stop", "trainer.log_every", "trainer.checkpoint_every", "trainer.keep",
    "trainer.keep_every", "trainer.max_save_failures", "trainer.grace_seconds", "trainer.collective_timeout",
    "trainer.on_divergence", "trainer.max_skipped", "trainer.max_rollbacks", "trainer.check_all", "trainer.strategy",
    "data.root",
    "data.workers", "data.resident_limit", "device.", "logger", "outputs_dir", "name", "sweep.",
)  # fmt: skip
Change = tuple[Any, Any]


def write(path: Path, composition: Composition) -> None:
    """Write a configuration; at its head the choices that made it, the command, and the defaults of what differs."""
    choices = " ".join(f"{group}={choice}" for group, choice in composition.choices.items())
    origin = json.dumps({"command": composition.command, "defaults": composition.defaults()})
    path.write_text(f"# {choices}\n# {origin}\n{OmegaConf.to_yaml(composition.config)}")


def read(path: Path, overrides: Sequence[str] = ()) -> Composition:
    """A configuration that `write` wrote, with overrides. Raises ConfigError and UsageError.

    Keys that are newer than the run have their usual values.
    """
    try:
        text = path.read_text()
        config = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} holds no configuration")
    first, *_ = [*text.splitlines(), ""]
    choices = dict(word.split("=", 1) for word in first.lstrip("# ").split() if first.startswith("#") and "=" in word)
    if isinstance(config.get("logger"), DictConfig) and isinstance(config.logger.get("name"), str):
        config.logger = {config.logger.name: config.logger}  # of a run from when there was one logger at a time
    damaged = [
        group for group in ("model", "optim", "data", "trainer") if not config.get(group) or group not in choices
    ]
    if damaged:
        raise ConfigError(f"{path} is damaged: it has no {damaged[0]}")
    known, (command, defaults) = dict(leaves(container(config))), origin(text)
    for key, value in _usual():
        group, _, name = key.rpartition(".")
        if key not in known and name in schema.keys(group) and key not in schema.OF_OPTIONS:
            OmegaConf.update(config, key, value)
    examples = {key: value for key, value in leaves(container(config)) if schema.offered(key)}
    for text in overrides:
        word = parse(text)
        if word.key_or_group in choices:
            raise ConfigError(f"{text}: a run goes on with the {word.key_or_group} it has; start another run")
        check_key(word, examples, [*choices])
        update(config, word)
    return Composition(
        check(config, examples, Path.cwd()), choices, command=(*command, *overrides), usual={**known, **defaults}
    )


def origin(text: str) -> tuple[list[str], dict[str, Any]]:
    """The command and the defaults at a configuration's head; empty in those of older runs."""
    _, second, *_ = [*text.split("\n", 2), "", ""]
    try:
        found = json.loads(second.removeprefix("# "))
        return list(found["command"]), dict(found["defaults"])
    except (ValueError, KeyError, TypeError):
        return [], {}


@cache
def _usual() -> tuple[tuple[str, Any], ...]:
    return tuple(leaves(container(compose().config)))


def read_with_data(path: Path, words: Sequence[str], *, more: Sequence[str] = ()) -> DictConfig:
    """The configuration of `read`, with other settings of `data` or another choice of it, and `more` overrides.

    Another data set is batched, sized and standardized as the run's, unless the words say otherwise.
    """
    for text in words:
        if parse(text).key_or_group.partition(".")[0] != "data":
            raise ConfigError(f"--data {text}: it sets data=NAME and data.KEY=VALUE alone")
    if not any(parse(text).key_or_group == "data" for text in words):
        return read(path, [*words, *more]).config
    config = container(read(path, more).config)
    kept = [f"data.{key}={config['data'][key]}" for key in ("batch_size", "image_size", "standardize")]
    other = container(compose([*kept, *words]).config)
    made: DictConfig = OmegaConf.create({**config, "data": other["data"]})
    OmegaConf.set_readonly(made, True)
    return made


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Change]:
    """The keys that differ between two configurations, with both values."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}


def of_the_past(changed: dict[str, Change]) -> list[str]:
    """Those that would make the steps taken so far other ones."""
    return [key for key in changed if not key.startswith(FREE)]
