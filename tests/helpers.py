"""Runs through the command, in this process, on little data."""

import inspect
import json
from pathlib import Path
from typing import Any

from dltrain import models
from dltrain.cli import main
from dltrain.run.record import read_rows

CONF = Path(__file__).parents[1] / "conf"
RUN_FOLDER = {
    "config.yaml",
    "metrics.jsonl",
    "summary.json",
    "train.log",
    "curves.png",
    "curves.svg",
    "environment.json",
    "checkpoints",
    ".lock",
}
LITTLE = (
    "data=synthetic",
    "data.num_train=700",
    "data.num_test=64",
    "data.val_size=64",
    "data.image_size=32",
    "device=cpu",
)


def options(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def networks() -> list[str]:
    """The choices of `model` that need to know nothing that images do not tell."""
    told = {"in_channels", "image_size", "num_classes", "input_shape", "num_outputs"}
    arguments = {name: inspect.signature(getattr(models, name)).parameters.values() for name in options("model")}
    return [name for name, some in arguments.items() if told.issuperset(a.name for a in some if a.default is a.empty)]


def train(*overrides: str, name: str = "run", expected: int = 0) -> Path:
    """Run `dltrain` on little images and return the run folder."""
    return run(*LITTLE, *overrides, name=name, expected=expected)


def run(*overrides: str, name: str = "run", expected: int = 0) -> Path:
    """Run `dltrain` and return the run folder."""
    arguments = [*overrides, f"name={name}", "outputs_dir=outputs", "--debug"]
    assert main(arguments) == expected
    return Path("outputs/runs").resolve() / name


def summary(folder: Path) -> dict[str, Any]:
    """The run's summary.json."""
    return json.loads((folder / "summary.json").read_text())


def rows(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The record's rows, of one split or of all."""
    return [row for row in read_rows(folder) if split in (None, row["split"])]
