"""How the cost of an epoch grows with image size, batch and depth: a run of some steps for each point.

python scripts/bench/scaling.py [overrides]; results go to scripts/bench/results/scaling-DEVICE-DATE.json.
"""

import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dltrain.bench.machine import packages, write_results
from dltrain.engine.device import describe, select

RESULTS = Path(__file__).parent / "results"
IMAGES = 60_000
# More than the fewest of which a run tells its rate; on CUDA they are short, and are timed from row to row.
STEPS = {"cpu": 13, "mps": 13, "cuda": 60}
REPEATS = {"cpu": 3, "mps": 3, "cuda": 2}  # of which the middle one counts, or the faster
CPU = {"image_size": (28, 48, 64, 96, 128), "batch_size": (32, 64, 128), "model": ("resnet18", "resnet34", "resnet50")}
GPU = {
    "image_size": (28, 48, 64, 96, 128, 224),
    "batch_size": (32, 64, 128, 256, 512, 1024),
    "model": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
}
BASE: dict[str, Any] = {"model": "resnet18", "image_size": 96, "batch_size": 32}


def point(values: dict[str, Any], overrides: list[str], *, kind: str) -> dict[str, Any]:
    """Seconds for an epoch of 60,000 images, from the median rate of some short runs, and the memory of that one."""
    runs = [short_run(values, overrides, kind=kind) for _ in range(REPEATS[kind])]
    failed = [run for run in runs if "error" in run]
    if failed:
        return failed[0]
    middle = sorted(runs, key=lambda run: run["images_per_second"])[len(runs) // 2]
    return {**middle, "rates": [run["images_per_second"] for run in runs]}


def short_run(values: dict[str, Any], overrides: list[str], *, kind: str) -> dict[str, Any]:
    """What a run of some steps says of its rate."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"model={values['model']}",
            f"data.image_size={values['image_size']}",
            f"data.batch_size={values['batch_size']}",
            f"trainer.limit_train_batches={STEPS[kind]}",
            "trainer.log_every=5",
            "trainer.epochs=1",
            "trainer.limit_val_batches=1",
            "trainer.limit_test_batches=1",
            "name=point",
            f"outputs_dir={folder}",
        ]
        done = subprocess.run([sys.executable, "-m", "dltrain", *words, *overrides], capture_output=True, text=True)
        if done.returncode:
            return {**values, "error": done.stderr.strip().splitlines()[-1] if done.stderr else str(done.returncode)}
        summary = json.loads((Path(folder) / "runs/point/summary.json").read_text())
    rate = summary["images_per_second"]
    if rate is None:
        return {**values, "error": f"a run of {summary['steps']} steps is too short to tell its rate"}
    return {**values, "images_per_second": rate, "seconds_per_epoch": IMAGES / rate} | {
        key: summary[key] for key in ("peak_memory_bytes", "device", "precision")
    }


def main(overrides: list[str]) -> None:
    """Vary one thing at a time, and write what is known after every point."""
    named = [word.partition("=")[2] for word in overrides if word.startswith("device=")]
    device = select(named[-1] if named else "auto")
    points: dict[str, list[dict[str, Any]]] = {}
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "device": describe(device),
        "memory_of": "device" if device.type == "cuda" else "process",
        "packages": packages(),
        "points": points,
    }
    for key, values in (GPU if device.type == "cuda" else CPU).items():
        points[key] = []
        for value in values:
            points[key].append(point({**BASE, key: value}, overrides, kind=device.type))
            print(points[key][-1], flush=True)
            path = write_results(RESULTS, f"scaling-{record['device']}", record)
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
