"""Golden losses: ten steps of every model on synthetic data give the losses that were committed.

`pytest tests/test_golden.py --update-golden` writes them anew; do so only where a change means to alter results.
"""

import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import DEEPEST, LITTLE, networks
from torch.nn.functional import pad

from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.train import fit

GOLDEN = Path(__file__).parent / "golden_losses.json"
SETTINGS = ("optim=sgd", "data.batch_size=16", "device.threads=1", "device.precision=fp32")
# Processors round differently. In float32 ten steps of a deep network make a tenth of the loss of that; in float64
# they make nothing of it.
RELATIVE_TOLERANCE = 1e-4


class InFloat64:
    """Batches of float64 images, padded in place of resized: every processor makes the same of them."""

    def __init__(self, batches):
        self.batches, self.padding = batches, (batches.prepare.image_size - 28) // 2
        batches.prepare = replace(batches.prepare, image_size=28)

    def __len__(self):
        return len(self.batches)

    def epoch(self, epoch, start=0):
        for images, labels in self.batches.epoch(epoch, start):
            yield pad(images.double(), [self.padding] * 4), labels


@torch.no_grad()
def draw_weights(model: torch.nn.Module) -> None:
    """Weights as the default draws them and zero biases, by arithmetic that rounds the same everywhere."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.zero_()
        elif weight.dim() > 1:
            whole = torch.randint(-(2**20), 2**20, weight.shape, generator=generator)
            weight.copy_(whole.double() / 2**20 / math.sqrt(weight[0].numel()))


def losses(model: str) -> list[float]:
    small = ["model.arch=squeezenet1_1"] if model == "torchvision" else []
    threads = torch.get_num_threads()
    run = build(compose([*LITTLE, *SETTINGS, f"model={model}", *small]).config)
    draw_weights(run.model.double())
    events = list(islice(fit(run.engine, InFloat64(run.batches["train"]), epochs=1, log_every=1), 10))
    torch.set_num_threads(threads)
    return [event.row["loss"] for event in events]


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.long] if name in DEEPEST else []) for name in networks()]
)
def test_ten_steps_give_the_golden_losses(model, request):
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    now = losses(model)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps({**golden, model: now}, indent=2, sort_keys=True) + "\n")
        pytest.skip("golden losses written")
    if model not in golden:
        pytest.skip("no golden losses yet: pytest tests/test_golden.py --update-golden records them")
    assert now == pytest.approx(golden[model], rel=RELATIVE_TOLERANCE)
