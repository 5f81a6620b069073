"""Write the measured part of docs/performance.md, and its pictures, from scripts/bench/results/*.json alone."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from dltrain.bench.report import COLUMNS, floor, machine_lines, rows

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "scripts" / "bench" / "results"
DOCS = ROOT / "docs"
START, END = "<!-- measured: written by scripts/bench/write_docs.py -->\n", "<!-- end of the measured part -->\n"
COLORS = {"dltrain": "#1f5fa8", "course loop": "#b0b0b0", "course loop, autocast": "#8a8a8a"}
KINDS = ("scaling-", "formats-")
OTHERS = ("#d98e32", "#6a9f58")


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
        first = results[0]
        lines += ["", f"**{model}**, batch {first['batch_size']}, {first['image_size']} px", ""]
        lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows(results)]
    return "\n".join(lines) + "\n"


def floors(record: dict[str, Any]) -> list[str]:
    """State, floor and gap of each model."""
    lines = ["| model | step, images/s | floor: its matrix products alone | reached |", "|---|---|---|---|"]
    for model, results in by_model(record).items():
        most, share = floor(results[0], record["machine"])
        rate = results[0]["images"] / median(results[0]["seconds"])
        lines.append(f"| {model} | {rate:,.0f} | {most:,.0f} | {share:.0%} |")
    return lines


def picture(name: str, record: dict[str, Any]) -> None:
    """Bars: images a second of a whole epoch, by model and contestant, over dltrain's."""
    groups = by_model(record)
    figure = Figure(figsize=(8, 1.2 + 0.9 * len(groups)), layout="constrained")
    axes = figure.subplots()
    names: list[str] = []
    for place, results in enumerate(groups.values()):
        epoch = [result for result in results if result["measure"] == "epoch" and result["seconds"]]
        ours = next(median(result["seconds"]) for result in epoch if result["contestant"] == "dltrain")
        for number, result in enumerate(epoch):
            who = result["contestant"]
            names += [who] if who not in names else []
            color = COLORS.get(who, OTHERS[(names.index(who)) % 2])
            share, y = ours / median(result["seconds"]), place + 0.8 * number / len(epoch)
            label = who if who not in [text.get_label() for text in axes.containers] else None
            bar = axes.barh(y, share, height=0.8 / len(epoch), color=color, label=label)
            axes.bar_label(bar, [f" {result['images'] / median(result['seconds']):,.0f}"], fontsize=8)
    axes.set_yticks([place + 0.3 for place in range(len(groups))], list(groups))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("speed of a whole epoch over dltrain's; the numbers are images a second")
    axes.set_title(f"{record['machine']['device']}, {record['date']}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4)
    figure.savefig(DOCS / f"{name}.png", dpi=120)


def scaling(name: str, record: dict[str, Any]) -> str:
    """The table of a machine's costs over image size, batch and depth."""
    lines = [f"### {record['device']}, {record['date']}", "", f"![Cost of an epoch]({name}.png)", ""]
    lines += ["| model | px | batch | images/s | s an epoch of 60,000 | peak memory |", "|---|---|---|---|---|---|"]
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
    for axes, (key, points) in zip(figure.subplots(1, 3), record["points"].items(), strict=True):
        good = [point for point in points if "error" not in point]
        places = [str(point[key]).removeprefix("resnet") for point in good]
        axes.plot(places, [point["seconds_per_epoch"] for point in good], "o-", color="#1f5fa8")
        axes.set_xlabel(titles[key])
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        for place, point in zip(places, good, strict=True):
            memory = f"{point['peak_memory_bytes'] / 2**30:.1f}"
            axes.annotate(memory, (place, point["seconds_per_epoch"]), (0, 6), textcoords="offset points", fontsize=7)
    figure.axes[0].set_ylabel("seconds an epoch of 60,000")
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
