"""Look at parameters, gradients and activations: `dltrain inspect RUN|OVERRIDES [--parameter NAME] [--folder DIR]`."""

import argparse
from importlib import import_module
from pathlib import Path

from dltrain.config.errors import UsageError
from dltrain.verbs._listed import outputs_of


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--parameter` prints one, by its name or its number; `--folder` is where the picture goes."""
    parser.add_argument("--parameter", metavar="NAME", help="show this one's values")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where pictures go")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Of a run its trained weights, its picture going into its folder; of overrides what they would begin with."""
    from dltrain.config import stored
    from dltrain.config.compose import compose
    from dltrain.run.folder import find

    names = [word for word in words if "=" not in word]
    if names:
        more, outputs = outputs_of([word for word in words if "=" in word])
        if len(names) > 1 or more:
            raise UsageError("dltrain inspect takes one run, a path or a name, or overrides such as model=lenet")
        folder = find(names[0], outputs)
        composition = stored.read(folder / "config.yaml")
    else:
        folder, composition = None, compose(words)
    if composition.config.data.name == "function":  # which has no layers to look into
        code: int = import_module("dltrain.verbs._inspect_function").inspect_function(composition.config)
        return code
    from dltrain.verbs._inspect_model import inspect_model

    return inspect_model(composition.config, folder, parameter=flags.parameter, pictures=flags.folder)
