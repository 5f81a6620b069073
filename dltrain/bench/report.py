"""Results as people read them: rates with their spread, and how many times faster we are."""

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from dltrain.run.console import table

COLUMNS = {
    "measure": "left",
    "contestant": "left",
    "images/s": "right",
    "spread": "right",
    "dltrain is": "right",
    "loss": "right",
}
SAME_LOSS = 1e-3  # relative, in float32
LEGEND = (
    "step: training on prepared batches; epoch: with a loader of one's own, and one evaluation;\n"
    "command: seconds from Enter to weights and a picture on disk"
)


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The machine and its measured rates, in words."""
    products = ", ".join(
        f"{rate / 1e12:,.2f} TFLOP/s {name}" for name, rate in machine["matmul_flops_per_second"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return [
        f"machine  {machine['device']}",
        f"rates    matrix product {products}; copy {machine['copy_bytes_per_second'] / 1e9:,.0f} GB/s",
        f"versions python {machine['python']}, {versions}",
    ]


def result_table(record: dict[str, Any], model: str) -> Table:
    """The results of one model."""
    results = [result for result in record["results"] if result["model"] == model]
    first = results[0]
    most, share = floor(first, record["machine"])
    reached = f"{share:.0%} of the {most:,.0f} images/s that matrix products alone would allow"
    title = f"\n{model}: batch {first['batch_size']}, {first['image_size']} px; {reached}"
    return table(title, COLUMNS, [list(row) for row in rows(results)])


def rows(results: list[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    """Cells in the order of COLUMNS; one that failed says why, and a loss that is not ours in float32 is marked."""
    ours = {result["measure"]: result for result in results if result["contestant"] == "dltrain"}
    for result in results:
        first = ours[result["measure"]]
        who = f"{result['contestant']}, {result['precision']}"
        if not result["seconds"]:
            yield result["measure"], who, "failed", "", "", str(result["error"])[:60]
            continue
        seconds = sorted(result["seconds"])
        if result["measure"] == "command":
            middle, spread = f"{median(seconds):.1f} s", f"{seconds[0]:.1f}-{seconds[-1]:.1f}"
        else:
            middle, low, high = (
                f"{result['images'] / each:,.0f}" for each in (median(seconds), seconds[-1], seconds[0])
            )
            spread = f"{low}-{high}"
        times = median(seconds) / median(first["seconds"])
        ratio = "" if result is first else f"{times:.2f} x"
        yield result["measure"], who, middle, spread, ratio, _loss(result, first)


def _loss(result: dict[str, Any], ours: dict[str, Any]) -> str:
    """The loss after the first steps, and whether it is another than ours where it should not be."""
    if result["loss"] is None:
        return ""
    same = math.isclose(result["loss"], ours["loss"], rel_tol=SAME_LOSS)
    comparable = result["precision"] == ours["precision"] == "fp32"
    return f"{result['loss']:.5f}" + (" differs" if comparable and not same else "")


def floor(result: dict[str, Any], machine: dict[str, Any]) -> tuple[float, float]:
    """Images a second if a step were its matrix products alone, and the share of that which is reached (MFU)."""
    most = machine["matmul_flops_per_second"][result["precision"]] / result["train_flops_per_image"]
    return most, result["images"] / median(result["seconds"]) / most
