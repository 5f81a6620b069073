"""Every command of docs/notes.md runs, on little data, for a few steps, with the first two values of what it sweeps."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import CONF, LITTLE

from dltrain.cli import main

DOCS = Path(__file__).parents[1] / "docs"
NOTES = (DOCS / "notes.md").read_text()
COMMANDS = list(dict.fromkeys(re.findall(r"`(dltrain [^`]+)`", NOTES)))
FEW = {"trainer.epochs": "1", "trainer.limit_train_batches": "2", "trainer.limit_val_batches": "1", "device": "cpu"}
IMAGES = {"data.batch_size": "32", "data.train_size": "300", **dict(word.split("=") for word in LITTLE)}


def preset(chosen):
    """The YAML of the preset that a command names, or nothing."""
    name = chosen.get("experiment")
    return yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text()) if name else {}


def shortened(chosen):
    """A sweep's values, a preset's too: of each key the first two at most, and one seed."""
    asked = preset(chosen).get("hydra", {}).get("sweeper", {}).get("params", {})
    values = {key: str(value) for key, value in {**asked, **chosen}.items()}
    short = {key: value if "[" in value else ",".join(value.split(",")[:2]) for key, value in values.items()}
    return {**short, "seed": "0"}


def in_smoke_form(line):
    """The words of a command, on synthetic images for a few steps; where it brings other data, on those."""
    words = shlex.split(line)[1:]
    chosen = dict(word.split("=", 1) for word in words if "=" in word)
    if "-m" in words:
        chosen = shortened(chosen)
    if "data" not in chosen and "data:" not in (yaml.dump(preset(chosen).get("defaults"))):
        chosen = {**chosen, **IMAGES}
    plain = [word for word in words if "=" not in word]
    return [*plain, *(f"{key}={value}" for key, value in {**chosen, **FEW}.items())]


def test_every_idea_has_its_command_and_its_picture_is_there():
    assert len(COMMANDS) > 60
    pictures = re.findall(r"\]\(([^)]+\.png)\)", NOTES)
    assert len(pictures) > 5
    for picture in pictures:
        assert (DOCS / picture).is_file(), picture


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_notes_runs(line):
    assert main(in_smoke_form(line)) == 0
