"""Write the measured part of docs/performance.md, and its pictures, from scripts/bench/results/*.json alone."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from dltrain.bench.floor import floor
from dltrain.bench.report import COLUMNS, heading, machine_lines, rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "scripts" / "bench" / "results"
DOCS = ROOT / "docs"
START, END = "<!-- measured: written by scripts/bench/write_docs.py -->\n", "<!-- end of the measured part -->\n"
COLORS = {"dltrain": "#1f5fa8", "course loop": "#8a8a8a", "Lightning": "#d98e32", "timm": "#6a9f58"}
KINDS = ("scaling-", "formats-", "ranks-", "gradients")  # the last two are those of ranks_docs.py


def records(kind: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every file of results of a kind, the newest first: rates of contestants, or scaling, or formats."""
    paths = [path for path in RESULTS.glob("*.json") if next(filter(path.name.startswith, KINDS), "") == kind]
    loaded = [(path.stem, json.loads(path.read_text())) for path in paths]
    return sorted(loaded, key=lambda pair: (pair[1]["date"], pair[0]), reverse=True)


def by_model(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results of each model, in the order in which they were measured."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in record["results"]:
        groups.setdefault(result["model"], []).append(result)
    return groups


def section(name: str, record: dict[str, Any]) -> str:
    """A machine's table and picture."""
    lines = [f"### {record['machine']['device']}, {record['date']}", "", "```text"]
    lines += [*machine_lines(record["machine"]), "```", "", f"![Epoch rates of {name}]({name}.png)", ""]
    lines += floors(record)
    for model, results in by_model(record).items():
        name, _, rest = heading(model, results[0]).partition(":")
        lines += ["", f"**{name}**:{rest}", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows(results)]
    return "\n".join(lines) + "\n"


def floors(record: dict[str, Any]) -> list[str]:
    """State, floors and gap of each model; what a file does not tell or what failed stays empty."""
    head = ("model", "step, images/s", "matrix products' floor", "memory's floor", "MFU", "reached")
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for model, results in by_model(record).items():
        here = floor(results[0], record["machine"])
        rates = ["" if rate is None else f"{rate:,.0f}" for rate in (here.rate, here.products, here.memory)]
        shares = ["" if share is None else f"{share:.0%}" for share in (here.mfu, here.share)]
        lines.append(f"| {' | '.join([model, *rates, *shares])} |")
    return lines


def epochs(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The whole-epoch results of each model of which we have one: ours first, without those that failed."""
    measured = {
        model: [result for result in results if result["measure"] == "epoch" and not result["error"]]
        for model, results in by_model(record).items()
    }
    return {model: good for model, good in measured.items() if good and good[0]["contestant"] == "dltrain"}


def picture(name: str, record: dict[str, Any]) -> None:
    """Bars: images a second of a whole epoch, by model and contestant, over dltrain's."""
    groups = epochs(record)
    figure = Figure(figsize=(8, 1.2 + 0.16 * sum(map(len, groups.values())) + 0.1 * len(groups)), layout="constrained")
    axes = figure.subplots()
    ticks, y = [], 0.0
    for results in groups.values():
        ticks.append(y + (len(results) - 1) / 2)
        for result in results:
            bar(axes, y, result, ours=median(results[0]["seconds"]))
            y += 1
        y += 0.8
    axes.set_yticks(ticks, list(groups))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("speed of a whole epoch over dltrain's; the numbers are images a second")
    axes.set_title(f"{record['machine']['device']}, {record['date']}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    labelled = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # each name once
    if labelled:
        figure.legend(labelled.values(), labelled, frameon=False, fontsize=8, loc="outside lower center", ncols=4)
    figure.savefig(DOCS / f"{name}.png", dpi=120)


def bar(axes: Any, y: float, result: dict[str, Any], *, ours: float) -> None:
    """A contestant's bar: a color for each trainer, paler in float32."""
    who, alpha = result["contestant"].partition(",")[0], 0.55 if result["precision"] == "fp32" else 1.0
    label = f"{who}, {result['precision']}"
    bars = axes.barh(y, ours / median(result["seconds"]), height=0.9, color=COLORS[who], alpha=alpha, label=label)
    axes.bar_label(bars, [f" {result['images'] / median(result['seconds']):,.0f}"], fontsize=7)


def scaling(name: str, record: dict[str, Any]) -> str:
    """The table of a machine's costs over image size, batch and depth."""
    lines = [f"### {record['device']}, {record['date']}", "", f"![Cost of an epoch]({name}.png)", ""]
    holder = record.get("memory_of", "process")
    lines += [f"| model | px | batch | images/s | s an epoch of 60,000 | peak memory of the {holder} |"]
    lines += ["|---|---|---|---|---|---|"]
    for points in record["points"].values():
        for point in points:
            where = f"| {point['model']} | {point['image_size']} | {point['batch_size']} |"
            if "error" in point:
                lines.append(f"{where} {point['error']} | | |")
                continue
            rate, seconds = point["images_per_second"], point["seconds_per_epoch"]
            lines.append(f"{where} {rate:,.0f} | {seconds:,.0f} | {point['peak_memory_bytes'] / 2**30:.1f} GiB |")
    return "\n".join(lines) + "\n"


def scaling_picture(name: str, record: dict[str, Any]) -> None:
    """Seconds an epoch and memory, over each thing that was varied."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    titles = {"image_size": "image size (px)", "batch_size": "batch size", "model": "depth"}
    places = figure.subplots(1, len(record["points"]), squeeze=False)[0]
    for axes, (key, points) in zip(places, record["points"].items(), strict=True):
        good = [point for point in points if "error" not in point]
        values = [int(str(point[key]).removeprefix("resnet")) for point in good]
        axes.plot(values, [point["seconds_per_epoch"] for point in good], "o-", color="#1f5fa8")
        axes.set_xlabel(titles[key])
        axes.set_xscale("log" if key == "batch_size" else "linear")
        axes.set_xticks(values, values)
        axes.minorticks_off()
        axes.margins(x=0.1, y=0.15)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        for value, point in zip(values, good, strict=True):
            memory = f"{point['peak_memory_bytes'] / 2**30:.1f}"
            axes.annotate(memory, (value, point["seconds_per_epoch"]), (0, 6), textcoords="offset points", fontsize=7)
    figure.axes[0].set_ylabel("seconds an epoch of 60,000 images")
    figure.suptitle(f"{record['device']}, {record['date']}; small figures: GiB at most", fontsize=9)
    figure.savefig(DOCS / f"{name}.png", dpi=120)


def formats(record: dict[str, Any]) -> str:
    """The table of a machine's rates in every precision and memory format."""
    results = record["results"]
    columns = list(dict.fromkeys((result["precision"], result["memory_format"]) for result in results))
    lines = [f"### {record['device']}, {record['date']}", ""]
    lines += ["| model, images/s | " + " | ".join(f"{precision}, {kind}" for precision, kind in columns) + " |"]
    lines += ["|---" * (1 + len(columns)) + "|"]
    for model in dict.fromkeys(result["model"] for result in results):
        rates = [result["images"] / median(result["seconds"]) for result in results if result["model"] == model]
        cells = [f"**{rate:,.0f}**" if rate == max(rates) else f"{rate:,.0f}" for rate in rates]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def measured() -> str:
    """The measured part as it should stand in the page."""
    parts = [section(name, record) for name, record in records()]
    choices = [formats(record) for _, record in records("formats-")]
    if choices:
        parts += ["## Precision and memory format\n", *choices]
    costs = [scaling(name, record) for name, record in records("scaling-")]
    if costs:
        parts += ["## What grows with what\n", *costs]
    return "\n".join(parts)


def main() -> None:
    """Write pictures and page."""
    for name, record in records():
        picture(name, record)
    for name, record in records("scaling-"):
        scaling_picture(name, record)
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(before + START + "\n" + measured() + "\n" + END + after)


if __name__ == "__main__":
    main()
