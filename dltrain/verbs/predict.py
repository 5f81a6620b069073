"""Write on from a prompt: `dltrain predict RUN --prompt "the time " [--length N] [--temperature T] [--seed S]`."""

import argparse
from functools import partial

from dltrain.config.errors import ConfigError, UsageError
from dltrain.verbs._listed import outputs_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What to write on from, how much, and how boldly."""
    parser.add_argument("--prompt")
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Print the prompt and what a run that learned text makes of it."""
    names, outputs = outputs_of(words)
    if len(names) != 1:
        raise UsageError('dltrain predict takes one run, a path or a name, such as dltrain predict first --prompt "a"')

    from dltrain.components import worded
    from dltrain.data.preparation import Tokens
    from dltrain.trained import load

    trained = load(names[0], outputs_dir=outputs)
    if not isinstance(trained.preparation, Tokens):
        learned = f"{names[0]} has learned data={trained.config.data.name}"
        raise ConfigError(f"dltrain predict writes on where text was learned, and {learned}: use dltrain.load there")
    if flags.prompt is None:
        raise UsageError('dltrain predict needs something to go on from, such as --prompt "the time "')
    how = {"length": flags.length, "temperature": flags.temperature, "seed": flags.seed}
    print(worded("dltrain predict", partial(trained.generate, flags.prompt, **how)))
    return 0
