"""Get data sets and verify them: `dltrain data fetch|check [data=NAME ...]`."""

import argparse

from dltrain.config.compose import compose
from dltrain.config.errors import UsageError


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Fetch what is missing, or verify every byte of what is there."""
    if not words or words[0] not in ("fetch", "check"):
        raise UsageError("dltrain data takes fetch or check, then overrides such as data=cifar10")
    action, *overrides = words
    config = compose(overrides, config_dirs=flags.config_dir).config

    from dltrain import data
    from dltrain.components import make
    from dltrain.data.dataset import DataError
    from dltrain.run.console import download_bar

    dataset = make(data, config.data)
    with download_bar() as progress:
        dataset.fetch(progress)
    try:
        facts = dataset.facts()
        dataset.load()
    except DataError as error:
        error.exit_code = 70 if action == "check" else error.exit_code
        raise
    counts = ", ".join(f"{count:,} {part}" for part, count in facts.num_examples.items())
    word = "verified" if facts.noun == "images" else "SHA-256"  # there is nothing to compare others with
    classes = f", {facts.num_classes} classes" if facts.num_classes else ""
    print(f"{config.data.name}: {counts} examples{classes}, {word}: {dataset.fingerprint()}")
    for note in facts.notes:
        print(f"note: {note}")
    return 0


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of composing."""
    parser.add_argument("--config-dir", "-cd", action="append", default=[])
