"""The words of a short run: its flags, and what they ask for, before torch is imported."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dltrain.config.errors import ConfigError

if TYPE_CHECKING:
    from dltrain.config.compose import Composition


def add_flags(parser: argparse.ArgumentParser, *, steps: int) -> None:
    """What all trials take beside overrides."""
    parser.add_argument("--steps", type=int, default=steps, metavar="N", help="steps to take at most")
    parser.add_argument(
        "--config-dir", "-cd", action="append", default=[], help="more choices: DIR/model/*.yaml and so on"
    )
    parser.add_argument("--multirun", "-m", action="store_true")


def composed(words: Sequence[str], flags: argparse.Namespace, *, verb: str, least: int) -> "Composition":
    """What the words ask for. Raises ConfigError for several settings or devices, and for what has no data set."""
    from dltrain.config.compose import compose, parse

    if flag := next((word for word in words if word.startswith("steps=")), None):
        raise ConfigError(f"{flag}: that is a flag: --{flag.replace('=', ' ')}")
    many = next((word for word in words if parse(word).is_sweep_override()), "-m" if flags.multirun else None)
    if many:
        raise ConfigError(f"{many}: dltrain {verb} takes one setting at a time, and is no sweep")
    if flags.steps < least:
        raise ConfigError(f"--steps {flags.steps}: must be {least} or more")
    composition = compose(words, config_dirs=flags.config_dir)
    if composition.sweep:
        raise ConfigError(
            f"experiment={composition.choices['experiment']} is a sweep: dltrain {verb} takes one setting"
        )
    if (count := composition.config.device.count) > 1:
        raise ConfigError(f"device.count={count}: dltrain {verb} takes its steps on one device; leave it out")
    if composition.config.data.name == "function":
        raise ConfigError(f"data=function: dltrain {verb} is for data sets, and a point on a landscape has none")
    return composition
