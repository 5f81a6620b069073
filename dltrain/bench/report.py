"""Results as people read them: rates with their spread, and how many times faster we are."""

import math
from collections.abc import Iterable
from statistics import median
from typing import Any

from rich.table import Table

from dltrain.bench.floor import floor
from dltrain.run.console import table

COLUMNS = {
    "measure": "left",
    "contestant": "left",
    "images/s": "right",
    "spread": "right",
    "rounds": "right",
    "dltrain is": "right",
    "loss": "right",
}
SAME_LOSS = 1e-3  # relative, in float32
LEGEND = (
    "step: training on prepared batches; epoch: with a loader of one's own, and one evaluation, whose images do not\n"
    "count; command: seconds from Enter to weights and a picture on disk; bf16 of others: under autocast"
)


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The machine and its measured rates, in words."""
    products = ", ".join(
        f"{rate / 1e12:,.2f} TFLOP/s {name}" for name, rate in machine["matmul_flops_per_second"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    cached = " (from the cache: --again measures anew)" if machine.get("cached") else ""
    return [
        f"machine  {machine['device']}",
        f"rates    matrix product {products}; copy {machine['copy_bytes_per_second'] / 1e9:,.0f} GB/s{cached}",
        f"versions python {machine['python']}, {versions}",
    ]


def result_table(record: dict[str, Any], model: str) -> Table:
    """The results of one model."""
    results = [result for result in record["results"] if result["model"] == model]
    here = floor(results[0], record["machine"])
    reached = "" if here.share is None else f"; {here.share:.0%} of what arithmetic and memory would allow"
    reached += "" if here.mfu is None else f", MFU {here.mfu:.0%}"
    return table(f"\n{heading(model, results[0])}{reached}", COLUMNS, [list(row) for row in rows(results)])


def heading(model: str, result: dict[str, Any]) -> str:
    """What was trained on; files of before epochs were counted do not tell how long one is."""
    epoch = result.get("epoch_images")
    counts = f"; an epoch trains on {epoch['train']:,} images and evaluates {epoch['evaluated']:,}" if epoch else ""
    return f"{model}: batch {result['batch_size']}, {result['image_size']} px{counts}"


def rows(results: list[dict[str, Any]]) -> Iterable[tuple[str, ...]]:
    """Cells in the order of COLUMNS; one that failed says why, and a loss that is not ours in float32 is marked.

    The first of ours, in the precision that was chosen, is what others are compared with.
    """
    ours = [result for result in results if result["contestant"] == "dltrain"]
    for result in results:
        same = [mine for mine in ours if mine["measure"] == result["measure"]]
        who = f"{result['contestant']}, {result['precision']}"
        if result["error"] or not result["seconds"]:
            done = str(len(result["seconds"]))
            yield result["measure"], who, "failed", "", done, "", str(result["error"])[:60]
            continue
        ratio = "" if not same or result is same[0] else _ratio(same[0], result)
        rounds = str(len(result["seconds"]))
        yield result["measure"], who, *_rate(result), rounds, ratio, _loss(result, same)


def _rate(result: dict[str, Any]) -> tuple[str, str]:
    """The median and the spread: images a second, or a command's seconds."""
    seconds = sorted(result["seconds"])
    if result["measure"] == "command":
        return f"{median(seconds):.1f} s", f"{seconds[0]:.1f}-{seconds[-1]:.1f}"
    middle, low, high = (f"{result['images'] / each:,.0f}" for each in (median(seconds), seconds[-1], seconds[0]))
    return middle, f"{low}-{high}"


def _ratio(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """How many times their time an image is ours; nothing where we failed."""
    if ours["error"] or not ours["seconds"]:
        return ""
    mine, other = (median(result["seconds"]) / result["images"] for result in (ours, theirs))
    return f"{other / mine:.2f} x"


def _loss(result: dict[str, Any], ours: list[dict[str, Any]]) -> str:
    """The loss after the first steps, and whether it is another than ours where in float32 it should not be."""
    if result["loss"] is None:
        return ""
    mine = [each["loss"] for each in ours if each["precision"] == result["precision"] == "fp32" and each["loss"]]
    same = all(math.isclose(result["loss"], loss, rel_tol=SAME_LOSS) for loss in mine)
    return f"{result['loss']:.5f}" + ("" if same else " differs")
