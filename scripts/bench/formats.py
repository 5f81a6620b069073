"""Which precision and memory format suit a model on this device: python scripts/bench/formats.py [overrides].

Rates of the training step on a prepared batch, in turns; results go to scripts/bench/results/formats-DEVICE-DATE.json.
"""

import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import median

from dltrain.bench.machine import packages, stopwatch, write_results
from dltrain.build import build
from dltrain.config.compose import compose
from dltrain.engine.device import describe

MODELS = {"mlp": 20, "lenet": 3, "resnet18": 1, "densenet": 1, "resnet50": 1}  # and the steps of a measurement
PRECISIONS, FORMATS = ("fp32", "bf16"), ("contiguous", "channels_last")
ON_CUDA = 50  # times as many, the first of which record the step
REPEATS = 5


def measure(model: str, steps: int, overrides: list[str]) -> list[dict[str, object]]:
    """Seconds of some steps in every precision and format."""
    runs = {}
    for precision, memory_format in product(PRECISIONS, FORMATS):
        words = [f"model={model}", f"device.precision={precision}", f"device.memory_format={memory_format}", *overrides]
        run = build(compose([*words, "optim=sgd", "trainer.limit_train_batches=1"]).config)
        runs[precision, memory_format] = run, next(iter(run.batches["train"].epoch(0)))
    device = next(iter(runs.values()))[0].engine.device
    steps *= ON_CUDA if device.type == "cuda" else 1
    seconds = {key: [] for key in runs}

    def work(key: tuple[str, str]) -> None:
        run, batch = runs[key]
        for step in range(steps):
            run.engine.step(batch, step)

    for repeat in range(REPEATS + 1):
        for key in runs:
            taken = stopwatch(lambda key=key: work(key), device)
            if repeat:  # the first round warms up
                seconds[key].append(taken)
    images = steps * next(iter(runs.values()))[0].config.data.batch_size
    return [
        {"model": model, "precision": precision, "memory_format": kind, "images": images, "seconds": taken}
        for (precision, kind), taken in seconds.items()
    ]


def main(overrides: list[str]) -> None:
    """Measure model after model."""
    results = []
    for model, steps in MODELS.items():
        results += measure(model, steps, overrides)
        for result in results[-4:]:
            rate = result["images"] / median(result["seconds"])
            print(f"{model:10} {result['precision']:5} {result['memory_format']:14} {rate:9,.0f} images/s", flush=True)
    device = describe(build(compose(["model=mlp", *overrides]).config).engine.device)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "packages": packages(),
        "results": results,
    }
    print(write_results(Path(__file__).parent / "results", f"formats-{device}", record))


if __name__ == "__main__":
    main(sys.argv[1:])
