"""`dltrain bench scaling`: what ranks cost, measured; and on paper, by a formula whose limits are known."""

import json
import runpy
from contextlib import nullcontext
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_bench import SMALL

from dltrain.bench import on_paper, on_ranks
from dltrain.bench import ranks_report as report
from dltrain.bench.communication import Bucket, Cluster, Link, Network, all_reduce, exposed, fit, ring, tree, waiting
from dltrain.cli import main
from dltrain.engine import Ranks
from dltrain.verbs import _bench_ranks

CHECKOUT = Path(__file__).parents[1]
COUNTS = json.loads((CHECKOUT / "scripts/bench/results/gradients.json").read_text())
LINK = Link(latency=1e-5, bandwidth=1e9)
FLAT = Cluster(LINK, LINK, 8)
NETWORK = Network([Bucket(4e6, 0.3), Bucket(1e6, 1.0)], 1e3)


def test_one_rank_waits_for_nothing_and_two_for_all_the_bytes() -> None:
    assert all_reduce(1e6, ranks=1, cluster=FLAT) == 0
    assert ring(1e6, ranks=2, link=LINK) == pytest.approx(2 * 1e-5 + 1e6 / 1e9)
    assert ring(1e6, ranks=4, link=LINK) == pytest.approx(6 * 1e-5 + 1.5e6 / 1e9)
    assert tree(1e6, ranks=8, link=LINK) == pytest.approx(6 * 1e-5 + 2e6 / 1e9)


def test_the_limits_of_a_link() -> None:
    endless = Link(1e-5, inf)
    assert all_reduce(1e9, ranks=8, cluster=Cluster(endless, endless, 8)) == pytest.approx(6e-5), "a tree's messages"
    instant = Link(0.0, 1e9)
    assert all_reduce(1e9, ranks=8, cluster=Cluster(instant, instant, 8)) == pytest.approx(2 * 7 / 8), "a ring's bytes"


def test_an_all_reduce_takes_longer_with_more_ranks_bytes_and_latency_and_less_with_bandwidth() -> None:
    cluster = on_paper.NODES
    by_ranks = [all_reduce(1e7, ranks=ranks, cluster=cluster) for ranks in (1, 2, 4, 8, 16, 64, 512)]
    by_size = [all_reduce(size, ranks=64, cluster=cluster) for size in (0, 1e3, 1e5, 1e7, 1e9)]
    assert by_ranks == sorted(set(by_ranks))
    assert by_size == sorted(set(by_size))
    slow = cluster._replace(between=Link(cluster.between.latency * 2, cluster.between.bandwidth / 2))
    assert all_reduce(1e7, ranks=64, cluster=slow) > all_reduce(1e7, ranks=64, cluster=cluster)
    assert all_reduce(1e7, ranks=8, cluster=slow) == all_reduce(1e7, ranks=8, cluster=cluster), "one node"


def test_between_nodes_each_rank_sends_its_part() -> None:
    far = Cluster(Link(0.0, inf), Link(0.0, 1e9), 8)
    assert all_reduce(8e9, ranks=16, cluster=far) == pytest.approx(1.0)


def test_what_the_backward_pass_hides() -> None:
    assert exposed([2.0, 1.0], [0.1, 1.0], backward=10) == pytest.approx(1.0), "the last bucket alone"
    assert exposed([12.0, 1.0], [0.1, 1.0], backward=10) == pytest.approx(1.0 + 12 - 9), "and what was too long"
    assert exposed([2.0, 1.0], [0.1, 1.0], backward=0) == pytest.approx(3.0), "nothing"
    assert exposed([1.0], [0.5], backward=10) == 0


def test_more_computing_hides_more() -> None:
    waits = [waiting(NETWORK, computing=seconds, ranks=8, cluster=FLAT) for seconds in (0.0, 0.001, 0.01, 0.1)]
    gradients = [each[0] for each in waits]
    assert gradients == sorted(gradients, reverse=True)
    assert gradients[0] > gradients[-1] == pytest.approx(all_reduce(1e6, ranks=8, cluster=FLAT))
    assert len({each[1] for each in waits}) == 1, "nothing hides the statistics"


@pytest.mark.parametrize("ranks", [2, 8])
def test_a_link_is_found_again_in_what_its_ring_takes(ranks: int) -> None:
    sizes = [2**power for power in range(12, 27, 2)]
    found = fit(sizes, [ring(size, ranks=ranks, link=LINK) for size in sizes], ranks=ranks)
    assert found == pytest.approx(LINK)


def test_on_paper_one_gpu_is_what_others_are_compared_with() -> None:
    for model, counted in COUNTS.items():
        for scenario in on_paper.SCENARIOS:
            one = on_paper.step(model, counted, scenario, share=256, one=256, ranks=1)
            few, many = (on_paper.step(model, counted, scenario, share=256, one=256, ranks=n) for n in (8, 64))
            assert one.efficiency == pytest.approx(1.0) or scenario.launched
            assert one.seconds < few.seconds < many.seconds
            enough = on_paper.enough(model, counted, scenario, 8)
            kept = [
                on_paper.step(model, counted, scenario, share=n, one=n, ranks=8).efficiency
                for n in (enough // 2, enough)
            ]
            assert kept[0] < on_paper.GOOD <= kept[1]


def test_what_the_page_says_of_launching_is_so() -> None:
    launched = on_paper.SCENARIOS[2]
    for model, counted in COUNTS.items():
        shared = on_paper.step(model, counted, launched, share=32, one=256, ranks=8)
        assert shared.seconds > 256 * launched.epochs[model] / on_paper.IMAGES


def test_ranks_are_powers_of_two_up_to_the_places() -> None:
    assert [_bench_ranks.rank_counts(places, 1) for places in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 8]]
    assert _bench_ranks.rank_counts(8, 2) == [1, 2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The exit code of a bench of two ranks on little data, and its file."""
    folder, threads = tmp_path_factory.mktemp("ranks"), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bench_ranks, "SECONDS", {True: 0.02, False: 0.02})
        patch.setattr("dltrain.bench.on_ranks.SIZES", [2**12, 2**16, 2**20])
        words = ["data.val_size=60", "device.count=2", "device.threads=2", *SMALL]
        code = main(["bench", "scaling", "--quick", "--repeats", "1", "--output", str(folder), *words])
    torch.set_num_threads(threads)
    return code, next(folder.glob("ranks-*.json"))


def test_a_bench_over_ranks_measures_and_writes_what_it_saw(measured) -> None:
    code, path = measured
    assert code == 0
    record = json.loads(path.read_text())
    one, strong, weak = record["results"]
    assert [(each["ranks"], each["scaling"], each["batch_size"]) for each in (one, strong, weak)] == [
        (1, "strong", 16),
        (2, "strong", 16),
        (2, "weak", 32),
    ]
    assert set(one["seconds"]) == {"whole"}
    for result in (strong, weak):
        assert set(result["seconds"]) == {"whole", "unaveraged", "alone"}
        assert all(seconds > 0 for way in result["seconds"].values() for seconds in way)
        assert sum(bucket["bytes"] for bucket in result["buckets"]) == 4 * (1024 * 256 + 256 + 256 * 10 + 10)
        assert result["buckets"][-1]["ready"] == 1
        assert result["statistics_bytes"] == 4
    assert strong["losses"] == pytest.approx(one["losses"], rel=1e-5), "the same examples in the same order"
    assert weak["losses"] != strong["losses"]
    assert all(seconds > 0 for taken in record["all_reduce"]["2"].values() for (seconds,) in [taken])
    assert record["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert {"date", "device", "threads", "cores", "counts"} < set(record)


class Listening(Ranks):
    """Ranks that note what they are asked."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.asked: list[object] = []

    def unshared(self, wrapped: Any, *, when: bool) -> Any:
        self.asked.append(when)
        return nullcontext()

    def average(self, tensors: Any) -> None:
        self.asked.append("average")


@pytest.mark.parametrize(
    ("way", "asked"), [("whole", [False, "average"]), ("unaveraged", [True, "average"]), ("alone", [True])]
)
def test_each_way_leaves_out_what_it_says_and_no_more(way: str, asked: list[object]) -> None:
    ranks = Listening()
    engine: Any = SimpleNamespace(ranks=ranks, strategy=ranks, forward=None)
    with on_ranks._without(engine, way):
        engine.ranks.average([])
    assert ranks.asked == asked
    assert engine.ranks is ranks


def made(ranks: int, whole: float, alone: float | None = None, **more: Any) -> dict[str, Any]:
    """A result whose steps take so many seconds."""
    seconds = {"whole": [whole] * 3} | ({} if alone is None else {"unaveraged": [alone] * 3, "alone": [alone] * 3})
    fixed = {"model": "mlp", "batch_size": 100, "image_size": 28, "precision": "fp32", "batch_norm": False}
    sent = {"statistics_bytes": 4, "buckets": [{"bytes": 1e6, "ready": 1.0}] if ranks > 1 else []}
    losses = {"losses": [2.0] * 3, "steps": [1] * 3}
    return {**fixed, **sent, **losses, "ranks": ranks, "scaling": "strong", "seconds": seconds, **more}


def test_efficiency_shares_and_verdict() -> None:
    taken = {str(size): [ring(size, ranks=2, link=LINK)] for size in (10**3, 10**6)}
    results = [made(1, 1.0), made(2, 1.25, 1.0), made(2, 2.5, 2.0, scaling="weak", batch_size=200)]
    record = {"kind": "cpu", "threads": 2, "results": results, "all_reduce": {"2": taken}}
    assert [report.cost(record, each).efficiency for each in results] == pytest.approx([1.0, 0.8, 0.8])
    assert report.cost(record, results[1]).gradients == pytest.approx(0.2)
    assert "limited by averaging gradients (20% of a step)" in report.verdict(record, "mlp")
    predicted = next(report.predicted_cells(record))
    assert predicted == ("mlp", "2", "100", "1,000.0", "1,250.0", "1,001.0", "1,001.0"), "1 ms for 1 MB, 20 us to ask"
    slower = {**record, "results": [made(1, 1.0), made(2, 2.0, 1.9)]}
    assert "limited by computing" in report.verdict(slower, "mlp")
    gpus = {**record, "kind": "cuda", "results": [made(1, 1.0), made(2, 0.5, 0.5)]}
    assert report.cost(gpus, gpus["results"][1]).efficiency == pytest.approx(1.0)
    odd = {**record, "results": [made(1, 1.0), made(2, 1.0, 1.0, losses=[2.1] * 3)]}
    assert [cells[-1] for cells in report.cells(odd, "mlp")] == ["2.00000", "2.10000 differs"]


def test_the_page_holds_what_the_files_hold(measured, monkeypatch, tmp_path) -> None:
    """As it stands, and written anew from a measurement."""
    written = runpy.run_path(str(CHECKOUT / "scripts/bench/ranks_docs.py"))
    page = (CHECKOUT / "docs/scaling.md").read_text()
    for start, text in (("MEASURED", "measured"), ("PAPER", "on_the_page")):
        _, _, rest = page.partition(written[start])
        assert rest.partition(written["END"])[0].strip() == written[text]().strip()
    for name, _ in written["records"]():
        assert (CHECKOUT / "docs" / f"{name}.png").is_file()
    _, path = measured
    names = written["main"].__globals__
    copy = tmp_path / "scaling.md"
    copy.write_text(page)
    for name, value in (("RESULTS", tmp_path), ("DOCS", tmp_path), ("PAGE", copy)):
        monkeypatch.setitem(names, name, value)
    (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "gradients.json").write_text(json.dumps(COUNTS))
    written["main"]()
    assert "| 2 | 32 |" in copy.read_text()
    assert (tmp_path / f"{path.stem}.png").is_file()
