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
    "report.html",
    "environment.json",
    "evaluation-test.json",
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


DEEPEST = ("resnet101", "resnet152")  # whose tests are long ones
OF_POINTS = {"newton", "preconditioned"}  # optimizers that take a Hessian, which even a small network has too large
SEARCHING = {"conjugate_gradient", "lbfgs", "line_search", *OF_POINTS}  # optimizers that decide on the host


def options(group: str) -> list[str]:
    """The choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def optimizers() -> list[str]:
    """The choices of `optim` for networks."""
    return [option for option in options("optim") if option not in OF_POINTS]


def networks() -> list[str]:
    """The choices of `model` that take images and need to know nothing that images do not tell."""
    told = {"in_channels", "image_size", "num_classes", "input_shape", "num_outputs"}
    of_images = [name for name in options("model") if name not in ("point", "ngram")]
    arguments = {name: inspect.signature(getattr(models, name)).parameters.values() for name in of_images}
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
