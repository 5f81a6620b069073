"""Draw a run while it trains: `dltrain watch RUN|SWEEP [--once]`, from the record alone."""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from dltrain.config.errors import UsageError
from dltrain.run.folder import RunError
from dltrain.verbs._listed import outputs_of
from dltrain.verbs._watch_view import View, read

SECONDS, SHARE = 1.0, 0.2  # between two looks, and the share of the time that looking may take


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--once`: draw one picture and end, as where the output is no terminal."""
    parser.add_argument("--once", action="store_true", help="draw once, and end")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Draw until the run has ended."""
    names, outputs = outputs_of(words)
    if len(names) != 1:
        raise UsageError("dltrain watch takes one run or sweep, a path or a name, such as dltrain watch first")
    folder = find(names[0], outputs)
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, emoji=False, force_terminal=None if terminal else False)
    if flags.once or not terminal:
        console.print(drawn(folder, console)[0])
        return 0
    follow(folder, console)
    return 0


def find(name: str, outputs: Path) -> Path:
    """The folder of a run, or of a sweep. Raises RunError."""
    from dltrain.run import folder

    sweeps = (each for each in (Path(name), outputs / "sweeps" / name) if (each / "sweep.jsonl").is_file())
    return next(sweeps, None) or folder.find(name, outputs)


def follow(folder: Path, console: Console) -> None:
    """Draw about once a second; the last picture stays."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            begun = time.monotonic()
            picture, over = drawn(folder, console)
            live.update(picture, refresh=True)
            if over:
                return
            time.sleep(max(SECONDS, (time.monotonic() - begun) / SHARE))


def drawn(folder: Path, console: Console) -> tuple[Group, bool]:
    """A picture that fits the terminal, and whether nothing more will come. Raises RunError (66)."""
    try:
        view: View = read(folder)
        return Group(*view.lines(width=console.width, height=console.height - 1)), view.over
    except FileNotFoundError as error:
        raise RunError(f"{folder} is gone") from error
    except OSError as error:
        raise RunError(f"{folder} cannot be read: {error.strerror}") from error
