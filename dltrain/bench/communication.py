"""What ranks spend on averaging gradients, on paper: links, all-reduces, and what of them the backward pass hides."""

from collections.abc import Iterable, Sequence
from math import ceil, log2
from typing import NamedTuple

import numpy as np

BACKWARD = 2 / 3  # of a step's computing: a layer's gradient is two products of the size of its forward one


class Link(NamedTuple):
    """Seconds that a message is under way, and bytes a second that a rank sends while it receives as many."""

    latency: float
    bandwidth: float


class Cluster(NamedTuple):
    """Nodes of so many ranks: the links inside, and each rank's own between them."""

    inside: Link
    between: Link
    node: int


class Bucket(NamedTuple):
    """Gradients that are averaged together: their bytes, and after what share of the backward pass they are there."""

    size: float
    ready: float


class Network(NamedTuple):
    """What goes between ranks in a step: gradients bucket by bucket, then loss and batch norm's statistics (bytes)."""

    buckets: Sequence[Bucket]
    statistics: float


def ring(size: float, *, ranks: int, link: Link) -> float:
    """Seconds of an all-reduce of so many bytes around a ring: each rank sends 2(N-1) pieces of an Nth.

    Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009.
    """
    return 2 * (ranks - 1) * (link.latency + size / ranks / link.bandwidth)


def tree(size: float, *, ranks: int, link: Link) -> float:
    """Seconds of an all-reduce up and down two binary trees, each with half of the bytes.

    Sanders, Speck and Traeff, Two-tree algorithms for full bandwidth broadcast, reduction and scan, 2009.
    """
    return 2 * (ceil(log2(ranks)) * link.latency + size / link.bandwidth)


def all_reduce(size: float, *, ranks: int, cluster: Cluster) -> float:
    """Seconds of the faster way: inside the nodes first, then between them with what is left to each rank.

    A ring leaves each rank of a node its part of the bytes, a tree all of them to one.
    """
    local = min(ranks, cluster.node)
    assert ranks % local == 0, "nodes are full"
    nodes = ranks // local
    scattered = ring(size, ranks=local, link=cluster.inside)
    gathered = tree(size, ranks=local, link=cluster.inside)
    return min(
        scattered + _fastest(size / local, ranks=nodes, link=cluster.between),
        gathered + _fastest(size, ranks=nodes, link=cluster.between),
    )


def _fastest(size: float, *, ranks: int, link: Link) -> float:
    return min(ring(size, ranks=ranks, link=link), tree(size, ranks=ranks, link=link))


def exposed(durations: Iterable[float], ready: Iterable[float], *, backward: float) -> float:
    """Seconds by which all-reduces, one after the other and none before its gradients are there, outlast the pass.

    That is the last one's, and what of the others the rest of the backward pass was too short for.
    """
    end = 0.0
    for seconds, share in zip(durations, ready, strict=True):
        end = max(end, share * backward) + seconds
    return max(0.0, end - backward)


def waiting(network: Network, *, computing: float, ranks: int, cluster: Cluster) -> tuple[float, float]:
    """Seconds a step waits for gradients where a rank computes for so long, and for loss and statistics after that."""
    durations = [all_reduce(bucket.size, ranks=ranks, cluster=cluster) for bucket in network.buckets]
    gradients = exposed(durations, [bucket.ready for bucket in network.buckets], backward=BACKWARD * computing)
    return gradients, all_reduce(network.statistics, ranks=ranks, cluster=cluster)


def computing(examples: float, *, seconds_per_example: float, host: float) -> float:
    """Seconds a rank computes on its share of a batch: no fewer than the host needs to ask for it."""
    return max(examples * seconds_per_example, host)


def fit(sizes: Sequence[float], seconds: Sequence[float], *, ranks: int) -> Link:
    """The link whose ring comes nearest to measured all-reduces, in relative error."""
    taken = np.asarray(seconds, dtype=float)
    rows = np.stack([np.ones(len(taken)), np.asarray(sizes, dtype=float)], axis=1) / taken[:, None]
    constant, each = np.linalg.lstsq(rows, np.ones(len(taken)), rcond=None)[0]
    if constant < 0:  # noise: no message is there before it is sent
        constant, (each,) = 0.0, np.linalg.lstsq(rows[:, 1:], np.ones(len(taken)), rcond=None)[0]
    return Link(latency=float(constant) / (2 * (ranks - 1)), bandwidth=2 * (ranks - 1) / ranks / float(each))
