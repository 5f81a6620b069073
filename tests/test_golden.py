"""Golden losses: ten steps of every model on synthetic data give the losses that were committed.

`pytest tests/test_golden.py --update-golden` writes them anew; do so only where a change means to alter results.
"""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from helpers import LITTLE, options

from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.train import fit

GOLDEN = Path(__file__).parent / "golden_losses.json"
SETTINGS = ("optim=sgd", "data.batch_size=16", "device.threads=1", "device.precision=fp32")
# Processors and versions of torch round differently, and ten steps of a deep network make more of it.
RELATIVE_TOLERANCE = 5e-3
DEEPEST = ("resnet101", "resnet152")


def losses(model: str) -> list[float]:
    small = ["model.arch=squeezenet1_1"] if model == "torchvision" else []
    threads = torch.get_num_threads()
    run = build(compose([*LITTLE, *SETTINGS, f"model={model}", *small]).config)
    events = list(islice(fit(run.engine, run.batches["train"], epochs=1, log_every=1), 10))
    torch.set_num_threads(threads)
    return [event.row["loss"] for event in events]


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.long] if name in DEEPEST else []) for name in options("model")]
)
def test_ten_steps_give_the_golden_losses(model, request):
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    now = losses(model)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(json.dumps({**golden, model: now}, indent=2, sort_keys=True) + "\n")
        pytest.skip("golden losses written")
    assert now == pytest.approx(golden[model], rel=RELATIVE_TOLERANCE)
