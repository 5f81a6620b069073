"""Every command of docs/notes.md runs, on little data, for a few steps, with the first two values of what it sweeps."""

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from helpers import CONF, LITTLE
from PIL import Image

from dltrain.cli import main
from dltrain.optim import scratch

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
    assert len(pictures) > 11
    for picture in pictures:
        assert (DOCS / picture).is_file(), picture


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_notes_runs(line, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "init.path=first" in line:
        assert main([*in_smoke_form("dltrain experiment=quick"), "name=first"]) == 0
    if "FOLDER" in line:
        draw_pictures(tmp_path / "food")
    assert main(in_smoke_form(line.replace("FOLDER", str(tmp_path / "food")))) == 0


def draw_pictures(root):
    """Eleven classes of eight grey pictures, in a folder of training alone."""
    for label in range(11):
        (root / str(label)).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (20, 20), 20 * label + number).save(root / str(label) / f"{number}.png")


def largest_difference(ours, theirs, *, scale=1.0, rate=lambda step: 1.0, every=True):
    """Of the weights of two rules over 20 steps on the same gradients, in proportion to the largest weight."""
    paths = []
    for make in (ours, theirs):
        weight = torch.nn.Parameter(torch.zeros(100, dtype=torch.float64))
        rule = make([weight])
        initial, generator, path = rule.param_groups[0]["lr"], torch.Generator().manual_seed(1), []
        for step in range(20):
            rule.param_groups[0]["lr"] = initial * rate(step)
            weight.grad = scale * torch.randn(100, generator=generator, dtype=torch.float64)
            rule.step()
            path.append(weight.detach().clone())
        paths.append(torch.stack(path if every else path[-1:]))
    return ((paths[0] - paths[1]).abs().max() / paths[1].abs().max()).item()


NOTES_NESTEROV = partial(scratch.ScratchNesterov, form="notes")
SGD, MOMENTUM = partial(torch.optim.SGD, lr=0.01), partial(torch.optim.SGD, lr=0.01, momentum=0.9)
NESTEROV = partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True)
HALVED = {"rate": lambda step: 0.5 if step >= 10 else 1.0}


@pytest.mark.parametrize(
    ("ours", "theirs", "how", "said"),
    [
        (scratch.ScratchSGD, SGD, {}, 0),
        (scratch.ScratchMomentum, MOMENTUM, {}, 0),
        (scratch.ScratchNesterov, NESTEROV, {}, 0),
        (scratch.ScratchAdaGrad, partial(torch.optim.Adagrad, eps=1e-7), {}, 0),
        (scratch.ScratchMomentum, MOMENTUM, HALVED, 0.30),
        (NOTES_NESTEROV, NESTEROV, {}, 0.084),
        (scratch.ScratchAdaGrad, torch.optim.Adagrad, {}, 3.6e-5),
        (scratch.ScratchAdam, torch.optim.Adam, {}, 3.9e-4),
        (scratch.ScratchAdam, torch.optim.Adam, {"scale": 1e-4, "every": False}, 0.085),
        (scratch.ScratchAdam, torch.optim.Adam, {"scale": 1e-6, "every": False}, 0.58),
    ],
)
def test_the_rules_differ_from_torchs_as_the_table_says(ours, theirs, how, said):
    assert largest_difference(ours, theirs, **how) == pytest.approx(said, rel=0.02, abs=1e-14)
    assert not said or (f"{said:.1e}".replace("e-0", "e-") if said < 1e-3 else f"{said:.2g}") in NOTES
