"""Go on with an interrupted run, or train a finished one longer: `dltrain resume RUN [overrides]`."""

import argparse

from dltrain.config.errors import UsageError


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--allow-changes`: the rest of the run may differ from its first part, or lack rows that were lost."""
    parser.add_argument("--allow-changes", action="store_true")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Go on from the newest checkpoint that verifies."""
    runs = [word for word in words if "=" not in word]
    if len(runs) != 1:
        raise UsageError("dltrain resume takes one run, a path or a name, then overrides such as trainer.epochs=10")
    where = [word.partition("=")[2] for word in words if word.startswith("outputs_dir=")]
    overrides = [word for word in words if "=" in word and not word.startswith("outputs_dir=")]

    from dltrain.config import stored
    from dltrain.run.folder import find

    folder = find(runs[0], where[-1] if where else "outputs")
    composition = stored.read(folder / "config.yaml", overrides)
    from dltrain.verbs._start import go_on

    return go_on(folder, composition, allow_changes=flags.allow_changes)
