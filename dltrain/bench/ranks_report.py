"""What was measured over ranks as people read it: rates, what is lost, and to what."""

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from dltrain.bench.communication import Bucket, Cluster, Link, Network, all_reduce, fit, waiting
from dltrain.bench.on_ranks import ALONE, UNAVERAGED, WHOLE
from dltrain.bench.report import SAME_LOSS
from dltrain.run.console import table

COLUMNS = {
    "ranks": "right",
    "batch": "right",
    "images/s": "right",
    "spread": "right",
    "ms a step": "right",
    "gradients": "right",
    "all talk": "right",
    "efficiency": "right",
    "loss": "right",
}
LEGEND = (
    "gradients: share of a step that goes when DDP does not average them (no_sync); all talk: when loss and batch\n"
    "norm's statistics are not averaged either. efficiency: images/s over those of one rank, on GPUs over that many\n"
    "times those. Of two rows of as many ranks, in the first they share the batch of one (strong scaling), in the\n"
    "second each has it (weak)."
)
WORTH_SAYING = 0.95  # an efficiency below which something limits
TOO_GOOD = 1.25  # an efficiency that only noise explains


class Cost(NamedTuple):
    """What a number of ranks reaches: per second and step the median of the rounds, and shares of a step."""

    rate: float
    slowest: float
    fastest: float
    seconds: float
    gradients: float
    talk: float
    efficiency: float


def head(record: dict[str, Any]) -> list[str]:
    """The machine, and what is compared, in words."""
    counts = ", ".join(map(str, record["counts"]))
    if record["kind"] == "cpu":
        shared = f"processor threads that they share: {record['threads']}"
    else:
        shared = f"a {record['kind']} device each"
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    lines = [f"machine  {record['device']}", f"versions {versions}", f"ranks    {counts}: {shared}"]
    if record["counts"] == [1]:
        what = "thread of a processor" if record["kind"] == "cpu" else f"{record['kind']} device"
        lines.append(f"there is one {what} here: one rank is measured, and nothing over ranks")
    return lines


def of_model(record: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """The results of a model, one rank first."""
    return [result for result in record["results"] if result["model"] == model]


def cost(record: dict[str, Any], result: dict[str, Any]) -> Cost:
    """A result beside that of one rank, round by round."""
    one = _step_seconds(of_model(record, result["model"])[0], WHOLE)
    whole = _step_seconds(result, WHOLE)
    rates = sorted(result["batch_size"] / seconds for seconds in whole)
    devices = 1 if record["kind"] == "cpu" else result["ranks"]
    grown = result["batch_size"] / of_model(record, result["model"])[0]["batch_size"]
    efficiencies = [grown * alone / here / devices for alone, here in zip(one, whole, strict=True)]
    return Cost(
        rate=median(rates),
        slowest=rates[0],
        fastest=rates[-1],
        seconds=median(whole),
        gradients=_saved(result, UNAVERAGED),
        talk=_saved(result, ALONE),
        efficiency=median(efficiencies),
    )


def _step_seconds(result: dict[str, Any], way: str) -> list[float]:
    """Seconds a step in every round."""
    return [seconds / count for seconds, count in zip(result["seconds"][way], result["steps"], strict=True)]


def _saved(result: dict[str, Any], way: str) -> float:
    """The share of a step that is not spent where steps leave something out; none on one rank, which has nothing to."""
    if way not in result["seconds"]:
        return 0.0
    pairs = zip(_step_seconds(result, way), _step_seconds(result, WHOLE), strict=True)
    return median([1 - without / whole for without, whole in pairs])


def model_table(record: dict[str, Any], model: str) -> Table:
    """The results of one model."""
    return table(f"\n{heading(record, model)}", COLUMNS, list(cells(record, model)))


def heading(record: dict[str, Any], model: str) -> str:
    """What was trained on, and what goes between ranks."""
    one, *several = of_model(record, model)
    words = f"{model}: batch {one['batch_size']}, {one['image_size']} px, {one['precision']}"
    if several:
        sizes = [bucket["bytes"] for bucket in several[-1]["buckets"]]
        parts = " + ".join(f"{size / 1e6:,.2f}" for size in sizes)
        words += (
            f"; gradients of {parts} MB, then {several[-1]['statistics_bytes'] / 1e3:,.1f} KB of loss and statistics"
        )
    return words


def cells(record: dict[str, Any], model: str) -> Iterator[tuple[str, ...]]:
    """A row of each number of ranks and batch, in the order of COLUMNS."""
    for result in of_model(record, model):
        here = cost(record, result)
        yield (
            str(result["ranks"]),
            str(result["batch_size"]),
            f"{here.rate:,.0f}",
            f"{here.slowest:,.0f}-{here.fastest:,.0f}",
            f"{1e3 * here.seconds:,.1f}",
            f"{here.gradients:.0%}" if result["ranks"] > 1 else "",
            f"{here.talk:.0%}" if result["ranks"] > 1 else "",
            f"{here.efficiency:.0%}" if result["ranks"] > 1 else "",
            _loss(record, result),
        )


def _loss(record: dict[str, Any], result: dict[str, Any]) -> str:
    """The loss after the first steps, which ranks on the batch of one have too, but for batch norm of their parts."""
    one = of_model(record, result["model"])[0]["losses"]
    losses = result["losses"]
    wanted = losses[0] if result["scaling"] == "weak" or result["batch_norm"] else one[0]
    tolerance = SAME_LOSS if result["precision"] == "fp32" else 10 * SAME_LOSS
    same = all(abs(loss - wanted) <= tolerance * abs(wanted) for loss in losses)
    return f"{losses[0]:.5f}" + ("" if same else " differs")


def verdict(record: dict[str, Any], model: str) -> str:
    """One sentence of what limits the most ranks on the batch of one."""
    result = next((each for each in reversed(of_model(record, model)) if each["scaling"] == "strong"), None)
    if result is None or result["ranks"] == 1:
        return f"{model}: one rank, which waits for no other"
    here = cost(record, result)
    where = f"{model}: {result['ranks']} ranks on a batch of {result['batch_size']} reach {here.efficiency:.0%}"
    if here.efficiency > TOO_GOOD:
        return f"{where}, which cannot be: measure on a machine that does nothing else"
    if here.efficiency >= WORTH_SAYING:
        return f"{where}: nothing limits them"
    lost = 1 - here.efficiency
    if here.talk < lost / 2:
        return f"{where}, limited by computing: parts of a batch, with a part of the threads each, are less efficient"
    if here.gradients < here.talk / 2:
        return f"{where}, limited by waiting for each other's loss and statistics ({here.talk:.0%} of a step)"
    return f"{where}, limited by averaging gradients ({here.gradients:.0%} of a step)"


def links(record: dict[str, Any]) -> dict[int, Link]:
    """By number of ranks the link that fits the all-reduces best."""
    return {
        int(count): fit([int(size) for size in taken], [median(each) for each in taken.values()], ranks=int(count))
        for count, taken in record["all_reduce"].items()
    }


def link_cells(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Sizes of all-reduces, what they took, and what the fitted link would take."""
    for count, link in links(record).items():
        for size, seconds in record["all_reduce"][str(count)].items():
            fitted = all_reduce(int(size), ranks=count, cluster=Cluster(link, link, count))
            yield str(count), f"{int(size) / 1024:,.0f}", f"{1e3 * median(seconds):,.3f}", f"{1e3 * fitted:,.3f}"


LINK_COLUMNS = {"ranks": "right", "KiB": "right", "ms": "right", "fitted": "right"}


def links_table(record: dict[str, Any]) -> Table:
    """All-reduces alone, by size."""
    fitted = "; ".join(
        f"{count} ranks: {1e6 * link.latency:,.0f} us and {link.bandwidth / 1e9:,.2f} GB/s"
        for count, link in links(record).items()
    )
    return table(f"\nall-reduce of float32 alone; {fitted}", LINK_COLUMNS, [*link_cells(record)])


PREDICTED_COLUMNS = {
    "model": "left",
    "ranks": "right",
    "batch": "right",
    "computing, ms": "right",
    "measured": "right",
    "predicted": "right",
    "with nothing hidden": "right",
}


def predicted_cells(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Each measured step of several ranks, and what the formula makes of its computing, its buckets and the link."""
    for result in [each for each in record["results"] if each["ranks"] > 1]:
        ranks, link = result["ranks"], links(record)[result["ranks"]]
        cluster = Cluster(link, link, ranks)
        network = Network(
            [Bucket(each["bytes"], each["ready"]) for each in result["buckets"]], result["statistics_bytes"]
        )
        computing = median(_step_seconds(result, ALONE))
        waits = sum(waiting(network, computing=computing, ranks=ranks, cluster=cluster))
        every = sum(all_reduce(size, ranks=ranks, cluster=cluster) for size in [each.size for each in network.buckets])
        every += all_reduce(network.statistics, ranks=ranks, cluster=cluster)
        steps = (computing, median(_step_seconds(result, WHOLE)), computing + waits, computing + every)
        yield result["model"], str(ranks), str(result["batch_size"]), *(f"{1e3 * each:,.1f}" for each in steps)
