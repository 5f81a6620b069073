"""Show what differs between two runs: `dltrain diff A B`; settings, results, data and versions."""

import argparse
import json
from pathlib import Path
from typing import Any

from dltrain.config.errors import UsageError
from dltrain.config.plain import settings
from dltrain.config.tree import leaves, spoken
from dltrain.run.folder import find, read_json
from dltrain.verbs._listed import aligned, outputs_of

# What says nothing about the difference: names, and what is told by the numbers beside it.
LEFT_OUT = {
    "settings": {"name", "outputs_dir"},
    "result": {"bottleneck"},
    "environment": {"command", "earlier"},
}
LONGEST = 40
Values = dict[str, Any]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def main(words: list[str], flags: argparse.Namespace) -> int:
    """Two columns of what differs, or one line where nothing does."""
    names, outputs = outputs_of(words)
    if len(names) != 2:
        raise UsageError("dltrain diff takes two runs, paths or names, such as dltrain diff first second")
    first, second = (find(name, outputs) for name in names)
    contents = [_content(first), _content(second)]
    found = {part: _differing(contents[0][part], contents[1][part], part) for part in LEFT_OUT}
    if flags.json:
        print(json.dumps({"a": str(first), "b": str(second), **found}, indent=2, default=str))
        return 0
    rows = [[part, key, *map(_text, pair)] for part, keys in found.items() for key, pair in keys.items()]
    if not rows:
        print(f"{names[0]} and {names[1]}: nothing differs")
        return 0
    print("\n".join(aligned({"of": "left", "key": "left", names[0]: "left", f"{names[1]} ": "left"}, rows)))
    return 0


def _content(folder: Path) -> dict[str, Values]:
    """The settings, the result and the environment of a run; what is missing or damaged is empty."""
    summary, environment = (read_json(folder / file) or {} for file in ("summary.json", "environment.json"))
    return {
        "settings": settings(folder / "config.yaml"),
        "result": dict(leaves(summary)),
        "environment": dict(leaves(environment)),
    }


def _differing(first: Values, second: Values, part: str) -> dict[str, tuple[Any, Any]]:
    keys = [key for key in {**first, **second} if key not in LEFT_OUT[part]]
    pairs = {key: (first.get(key), second.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else spoken(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
