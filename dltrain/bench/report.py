"""Results as people read them: rates with their spread, and how many times faster we are."""

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
    """Cells in the order of COLUMNS; one that failed says why."""
    ours = {result["measure"]: result for result in results if result["contestant"] == "dltrain"}
    for result in results:
        who = f"{result['contestant']}, {result['precision']}"
        if not result["seconds"]:
            yield result["measure"], who, "failed", "", "", str(result["error"])[:60]
            continue
        rates = sorted(result["images"] / seconds for seconds in result["seconds"])
        times = median(ours[result["measure"]]["images"] / s for s in ours[result["measure"]]["seconds"])
        ratio = "" if result["contestant"] == "dltrain" else f"{times / median(rates):.2f} x"
        loss = "" if result["loss"] is None else f"{result['loss']:.5f}"
        unit = f"{median(result['seconds']):.1f} s" if result["measure"] == "command" else f"{median(rates):,.0f}"
        spread = (
            f"{min(result['seconds']):.1f}-{max(result['seconds']):.1f}"
            if result["measure"] == "command"
            else f"{rates[0]:,.0f}-{rates[-1]:,.0f}"
        )
        yield result["measure"], who, unit, spread, ratio, loss


def floor(result: dict[str, Any], machine: dict[str, Any]) -> tuple[float, float]:
    """Images a second if a step were its matrix products alone, and the share of that which is reached (MFU)."""
    most = machine["matmul_flops_per_second"][result["precision"]] / result["train_flops_per_image"]
    return most, result["images"] / median(result["seconds"]) / most
