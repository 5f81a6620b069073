"""Name pictures, or write on: `dltrain predict RUN IMAGE...|FOLDER [--top N] [--json] [--invert]`, `--prompt TEXT`."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dltrain.config.errors import ConfigError, UsageError
from dltrain.verbs._listed import outputs_of

if TYPE_CHECKING:
    from dltrain.trained import Trained


def add_flags(parser: argparse.ArgumentParser) -> None:
    """How many classes of a picture to tell, and how; or what to write on from, how much, and how boldly."""
    parser.add_argument("--top", type=int, default=3, help="so many classes of a picture")
    parser.add_argument("--json", action="store_true", help="a line of JSON a picture")
    parser.add_argument("--invert", action="store_true", help="black for white")
    parser.add_argument(
        "--fit", choices=("squash", "crop"), help="how a picture becomes square; without it as in the run"
    )
    parser.add_argument("--prompt", help="text to go on from, where text was learned")
    parser.add_argument("--length", type=int, default=100, help="tokens to write")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 the likely ones are favoured; 0 takes the likeliest"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Print what a run makes of pictures or, where it learned text, of a prompt; 66 where a picture is unreadable."""
    (name, *paths), outputs = _named(words)
    if flags.top < 1:
        raise UsageError(f"--top {flags.top}: at least 1")

    from dltrain.run.folder import find

    if not (Path(name).suffix == ".safetensors" and Path(name).is_file()):
        find(name, outputs)  # before torch is imported

    from dltrain.data.preparation import Pixels, Tokens
    from dltrain.trained import load

    trained = load(name, outputs_dir=outputs)
    learned = f"{name} has learned data={trained.config.data.name}"
    if isinstance(trained.preparation, Tokens):
        if paths:
            raise ConfigError(f"{paths[0]}: {learned}, which are no pictures; go on from a --prompt")
        return _write_on(trained, flags)
    if flags.prompt is not None:
        raise ConfigError(f"--prompt writes on where text was learned, and {learned}")
    if not isinstance(trained.preparation, Pixels):
        raise ConfigError(f"dltrain predict takes pictures or a prompt, and {learned}: use dltrain.load there")
    if not paths:
        raise UsageError(f"dltrain predict needs pictures, or a folder of them, as in dltrain predict {name} shoe.jpg")

    from dltrain.verbs._predict_pictures import predict_pictures

    return predict_pictures(
        trained, [Path(each) for each in paths], top=flags.top, as_json=flags.json, invert=flags.invert, fit=flags.fit
    )


def _named(words: list[str]) -> tuple[list[str], Path]:
    """The run and the pictures, and where outputs are."""
    names, outputs = outputs_of(words)
    if not names:
        raise UsageError("dltrain predict takes a run, a path or a name, and pictures: dltrain predict first shoe.jpg")
    return names, outputs


def _write_on(trained: "Trained", flags: argparse.Namespace) -> int:
    from dltrain.components import worded

    if flags.prompt is None:
        raise UsageError('dltrain predict needs something to go on from, such as --prompt "the time "')
    how = {"length": flags.length, "temperature": flags.temperature, "seed": flags.seed}
    print(worded("dltrain predict", partial(trained.generate, flags.prompt, **how)))
    return 0
