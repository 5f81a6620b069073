"""Count what a step of each network asks of a device, and what two ranks tell each other in it; nothing is timed.

python scripts/bench/count_gradients.py: scripts/bench/results/gradients.json, of which docs/scaling.md is computed.
Only the shares of the backward pass after which buckets are ready come from a clock, that of a processor.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from dltrain.bench.on_ranks import count
from dltrain.bench.task import COMMON, first_batches
from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.run.folder import write_json
from dltrain.verbs._launch import run_ranks

RESULTS = Path(__file__).parent / "results"
DATA = ("data=synthetic", "data.num_train=320", "data.num_test=64", "data.batch_size=64")
SETTINGS = (*COMMON, *DATA, "device=cpu", "device.precision=bf16")


class Calls(TorchDispatchMode):
    """Counts the operations that are called, without those that only look at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not operation.is_view
        return operation(*args, **kwargs or {})


def calls(words: list[str]) -> int:
    """Operations of a step on one rank, after the first steps."""
    run = build(compose(words).config)
    batches = first_batches(run)
    for step in range(2):
        run.engine.step(batches[step], step)
    with Calls() as counted:
        run.engine.step(batches[2], 2)
    return counted.number


def network(model: str) -> dict[str, Any]:
    """What there is to know of a network."""
    words = [*SETTINGS, f"model={model}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        assert run_ranks(compose([*words, "device.count=2", "device.threads=1"]), count, path=path) == 0
        return {"calls": calls(words), **json.loads(path.read_text())}


if __name__ == "__main__":
    write_json(RESULTS / "gradients.json", {name: network(name) for name in ("mlp", "lenet", "resnet18", "densenet")})
