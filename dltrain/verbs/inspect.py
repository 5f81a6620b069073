"""Look into what a configuration names, without training: the convexity of a function."""

import argparse

from dltrain.config.compose import compose
from dltrain.config.errors import ConfigError


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Inspect what the overrides name."""
    config = compose(words).config
    if config.data.name == "function":
        from dltrain.verbs._inspect_function import inspect_function

        return inspect_function(config)
    raise ConfigError("dltrain inspect looks at functions alone: dltrain inspect data=function data.function=saddle")
