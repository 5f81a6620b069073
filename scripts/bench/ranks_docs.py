"""Write the computed parts of docs/scaling.md: what was measured over ranks, with pictures, and what that is on paper.

From scripts/bench/results/ranks-*.json (`dltrain bench scaling --output scripts/bench/results`) and gradients.json
(count_gradients.py) alone.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dltrain.bench import on_paper
from dltrain.bench import ranks_report as report

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "scripts" / "bench" / "results"
DOCS = ROOT / "docs"
PAGE = DOCS / "scaling.md"
END = "<!-- end of what scripts/bench/ranks_docs.py writes -->\n"
MEASURED, PAPER = (f"<!-- {part}: written by scripts/bench/ranks_docs.py -->\n" for part in ("measured", "on paper"))
NOT_YET = "Not measured yet: that takes a machine with nothing else to do, and `./scripts/bench/run --ranks`.\n"
COLORS = {"mlp": "#8a8a8a", "lenet": "#d98e32", "resnet18": "#1f5fa8", "densenet": "#6a9f58"}
BESIDE = ((5, -8), (5, 3))  # the lower one of two ends, and the higher one, in points
LINES = {"strong": "o-", "weak": "s--"}


def records() -> list[tuple[str, dict[str, Any]]]:
    """Every file of results over ranks, the newest first."""
    loaded = [(path.stem, json.loads(path.read_text())) for path in RESULTS.glob("ranks-*.json")]
    return sorted(loaded, key=lambda pair: (pair[1]["date"], pair[0]), reverse=True)


def models(record: dict[str, Any]) -> list[str]:
    """Those that were measured, in order."""
    return list(dict.fromkeys(result["model"] for result in record["results"]))


def markdown(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """A table."""
    head = list(columns)
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return ["", *lines, ""]


def section(name: str, record: dict[str, Any]) -> list[str]:
    """What a machine has shown."""
    lines = [f"### {record['device']}, {record['date']}", "", "```text", *report.head(record), "```", ""]
    lines += [f"![Images a second and efficiency over ranks]({name}.png)", "", report.LEGEND]
    for model in models(record):
        lines += ["", f"**{report.heading(record, model)}**"]
        lines += markdown(report.COLUMNS, report.cells(record, model))
        lines += [report.verdict(record, model) + "."]
    return [*lines, *(all_reduces(record) if record["all_reduce"] else [])]


def all_reduces(record: dict[str, Any]) -> list[str]:
    """What ranks have said to each other, and what the formula makes of it."""
    lines = []
    for count, link in report.links(record).items():
        lines += ["", f"All-reduces alone between {count} ranks: the fit of a ring over all sizes is a latency of"]
        lines += [f"{1e6 * link.latency:,.0f} us a message and {link.bandwidth / 1e9:,.2f} GB/s."]
    lines += markdown(report.LINK_COLUMNS, report.link_cells(record))
    lines += ["Steps by the formula below, from that fit, the buckets, and a step in which ranks say nothing:"]
    return lines + markdown(report.PREDICTED_COLUMNS, report.predicted_cells(record))


def measured() -> str:
    """The measured part as it should stand in the page."""
    return "\n".join(line for name, record in records() for line in section(name, record)) or NOT_YET


def on_the_page() -> str:
    """The part on paper as it should stand in the page."""
    counts = json.loads((RESULTS / "gradients.json").read_text())
    lines = markdown(on_paper.COUNTED_COLUMNS, on_paper.counted_rows(counts))
    for words, weak in (("A batch of 256 shared by all GPUs (strong scaling)", False), ("256 on each (weak)", True)):
        lines += [f"{words}; a step is computing + waiting for gradients + for loss and statistics:"]
        lines += markdown(on_paper.COLUMNS, on_paper.rows(counts, batch=256, weak=weak))
    lines += ["Examples that each GPU needs at the least, as a power of two, to keep 90 % of one GPU's rate:"]
    return "\n".join(lines + markdown(on_paper.ENOUGH_COLUMNS, on_paper.enough_rows(counts)))


def picture(name: str, record: dict[str, Any]) -> None:
    """Images a second and efficiency over ranks, for a batch shared and for one on each."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rates, efficiencies = figure.subplots(1, 2)
    for model in models(record):
        ends = []
        for scaling, line in LINES.items():
            every = report.of_model(record, model)  # one rank has both at once
            results = [each for each in every if each["ranks"] == 1 or each["scaling"] == scaling]
            costs = [report.cost(record, result) for result in results]
            places, how = [result["ranks"] for result in results], {"color": COLORS.get(model), "markersize": 4}
            ends.append((costs[-1].rate, places[-1]))
            rates.plot(places, [cost.rate for cost in costs], line, label=f"{model}, {scaling}", **how)
            efficiencies.plot(places, [100 * cost.efficiency for cost in costs], line, **how)
        for (rate, place), beside in zip(sorted(ends), BESIDE, strict=True):
            rates.annotate(f"{rate:,.0f}", (place, rate), xytext=beside, textcoords="offset points", fontsize=7)
    rates.set(yscale="log", ylabel="images a second")
    efficiencies.set(ylim=(0, None), ylabel="efficiency, %")
    efficiencies.axhline(100, color="#cccccc", linewidth=0.8, zorder=0)
    for axes in (rates, efficiencies):
        axes.set_xscale("log", base=2)
        axes.set_xticks(record["counts"], [str(count) for count in record["counts"]])
        axes.set_xlabel("ranks")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside right center")
    figure.suptitle(f"{record['device']}, {record['date']}", fontsize=10)
    figure.savefig(DOCS / f"{name}.png", dpi=120)


def replaced(page: str, start: str, text: str) -> str:
    """The page with another text between a start and the next end."""
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(END)
    return f"{before}{start}\n{text.strip()}\n\n{END}{after}"


def main() -> None:
    """Write pictures and page."""
    for name, record in records():
        picture(name, record)
    page = replaced(PAGE.read_text(), MEASURED, measured())
    PAGE.write_text(replaced(page, PAPER, on_the_page()))


if __name__ == "__main__":
    main()
