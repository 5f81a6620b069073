"""What 8 and 64 GPUs would reach, computed from counted gradients and stated assumptions; nothing here is measured."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from dltrain.bench.communication import Bucket, Cluster, Link, Network, computing, waiting

# NVLink 4: 900 GB/s a GPU, both directions together (NVIDIA H200's data sheet). NDR InfiniBand: 400 Gb/s a GPU each
# way (ConnectX-7's). Latencies of a message are assumed.
NODES = Cluster(inside=Link(5e-6, 450e9), between=Link(20e-6, 50e9), node=8)
LAUNCH = 5e-6  # seconds of the host for an operation that is no part of a CUDA graph; assumed
IMAGES = 60_000
# Seconds an epoch of Fashion-MNIST at 96 px on one H200 takes: at the least, by its rate of bf16 matrix products
# (790 TFLOP/s) or of memory (4.3 TB/s) where everything that can be is fused; and as dltrain aims at, not reached yet.
FLOOR = {"mlp": 0.001, "lenet": 0.04, "resnet18": 0.19, "densenet": 0.25}
AIM = {"mlp": 0.05, "lenet": 0.1, "resnet18": 0.45, "densenet": 0.55}
COUNTS = (8, 64)
GOOD = 0.9


class Scenario(NamedTuple):
    """How long an image takes a GPU, and whether ranks pay for launching each operation, as they do without graphs."""

    words: str
    epochs: dict[str, float]
    launched: bool


SCENARIOS = (
    Scenario("floor", FLOOR, launched=False),
    Scenario("aim", AIM, launched=False),
    Scenario("aim, launched", AIM, launched=True),
)


class Step(NamedTuple):
    """Seconds of a rank's step, and what of one GPU's rate each of the ranks keeps."""

    computing: float
    gradients: float
    statistics: float
    efficiency: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.computing + self.gradients + self.statistics


def network(counted: dict[str, Any]) -> Network:
    """What goes between ranks, from the counts of a network."""
    return Network([Bucket(each["bytes"], each["ready"]) for each in counted["buckets"]], counted["statistics_bytes"])


def step(model: str, counted: dict[str, Any], scenario: Scenario, *, share: float, one: float, ranks: int) -> Step:
    """A step of ranks that have so many examples each, beside one GPU on a batch of `one`, which replays a graph."""
    each = scenario.epochs[model] / IMAGES
    host = counted["calls"] * LAUNCH if scenario.launched else 0.0
    own = computing(share, seconds_per_example=each, host=host)
    gradients, statistics = waiting(network(counted), computing=own, ranks=ranks, cluster=NODES)
    alone = computing(one, seconds_per_example=each, host=0.0)
    efficiency = (share / (own + gradients + statistics)) / (one / alone)
    return Step(own, gradients, statistics, efficiency)


COLUMNS = ("network", "scenario", "one GPU, ms", *(f"{count} GPUs, ms" for count in COUNTS), "efficiency")


def rows(counts: dict[str, Any], *, batch: int, weak: bool) -> Iterator[tuple[str, ...]]:
    """Steps of a batch shared by all ranks, or of that batch on each: computing + gradients + statistics = all."""
    for model, counted in counts.items():
        for scenario in SCENARIOS:
            shares = [batch if weak else batch / ranks for ranks in COUNTS]
            steps = [
                step(model, counted, scenario, share=share, one=batch, ranks=ranks)
                for share, ranks in zip(shares, COUNTS, strict=True)
            ]
            one = 1e3 * batch * scenario.epochs[model] / IMAGES
            efficiency = ", ".join(f"{each.efficiency:.0%}" for each in steps)
            yield model, scenario.words, f"{one:.3f}", *map(_sum, steps), efficiency


def _sum(each: Step) -> str:
    parts = (each.computing, each.gradients, each.statistics)
    return f"{' + '.join(f'{1e3 * part:.3f}' for part in parts)} = {1e3 * each.seconds:.3f}"


ENOUGH_COLUMNS = ("network", *(f"{scenario.words}, {count} GPUs" for scenario in SCENARIOS for count in COUNTS))


def enough_rows(counts: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The fewest examples a rank, as a power of two, with which it keeps 90 % of one GPU's rate at any batch."""
    for model, counted in counts.items():
        yield model, *(f"{enough(model, counted, *each):,}" for each in _cases())


def _cases() -> Iterator[tuple[Scenario, int]]:
    for scenario in SCENARIOS:
        yield from ((scenario, count) for count in COUNTS)


def enough(model: str, counted: dict[str, Any], scenario: Scenario, ranks: int) -> int:
    """That many examples."""
    share = 1
    while step(model, counted, scenario, share=share, one=share, ranks=ranks).efficiency < GOOD:
        share *= 2
    return share


COUNTED_COLUMNS = (
    "network",
    "buckets, MB, and the share of the backward pass before each",
    "rest, bytes",
    "operations",
)


def counted_rows(counts: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """What was counted of each network; the rest are loss and batch norm's statistics."""
    for model, counted in counts.items():
        parts = [f"{each['bytes'] / 1e6:.3f} at {each['ready']:.0%}" for each in counted["buckets"]]
        yield model, ", ".join(parts), f"{counted['statistics_bytes']:,}", f"{counted['calls']}"
