"""Hydra's own informative flags (`--hydra-help`, `--info`, `--cfg hydra`), answered by Hydra itself."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra

from dltrain.config.folders import conf_dir


def ask(arguments: Sequence[str]) -> int:
    """Hand a command line to Hydra, with a task that is never to run; returns the exit code."""

    def task(config: Any) -> None:
        raise AssertionError("an informative flag ran the task")

    decorated = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)
    before, handlers = sys.argv, logging.root.handlers[:]
    sys.argv = ["dltrain", *arguments]
    try:
        with lazy_help_allowed():
            decorated()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv, logging.root.handlers[:] = before, handlers
    return 0


@contextmanager
def lazy_help_allowed() -> Iterator[None]:
    """Python 3.14's argparse wants help to be text when an argument is added; Hydra 1.3's is made when shown."""
    check: Any = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is None:
        yield
        return

    def checked(parser: argparse.ArgumentParser, action: argparse.Action) -> None:
        if isinstance(action.help, str):
            check(parser, action)

    argparse.ArgumentParser._check_help = checked  # type: ignore[attr-defined]
    try:
        yield
    finally:
        argparse.ArgumentParser._check_help = check  # type: ignore[attr-defined]
