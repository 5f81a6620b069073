"""The pace of a run on a clock of our own: what counts, what the time goes into, and the words for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dltrain.run.bottleneck import bottleneck
from dltrain.run.console import quantity
from dltrain.run.environment import process_age
from dltrain.run.pace import Pace, timed
from dltrain.train import fit

IMAGES = 8


class Clock:
    """The time, which passes when somebody says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dltrain.run.pace.time.perf_counter", clock)
    return clock


class SlowBatches:
    """Batches each of which takes `seconds` to come."""

    def __init__(self, clock: Clock, seconds: float, *, count: int = 20) -> None:
        self.clock, self.seconds, self.count = clock, seconds, count

    def __len__(self) -> int:
        return self.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[range, range]]:
        for _ in range(start, self.count):
            self.clock.advance(self.seconds)
            yield range(IMAGES), range(IMAGES)


class Device:
    """An engine whose steps take the host `host` seconds and then, in a queue, the device `device` seconds.

    The first step takes longer by `set_up`; an evaluation takes 50.
    """

    def __init__(self, clock: Clock, *, host: float, device: float = 0.0, set_up: float = 0.0) -> None:
        self.clock, self.host, self.device, self.set_up = clock, host, device, set_up
        self.idle_from = 0.0

    def begin_epoch(self) -> None:
        pass

    def step(self, batch: object, step: int) -> None:
        self.clock.advance(self.host + (self.set_up if step == 0 else 0.0))
        self.idle_from = max(self.idle_from, self.clock.now) + self.device

    def report(self, *, epoch: bool) -> dict[str, float]:
        self.clock.now = max(self.clock.now, self.idle_from)
        return {"loss": 0.0}

    @contextmanager
    def evaluating(self):
        class Totals:
            def read(self) -> dict[str, float]:
                return {"loss": 0.0, "images_per_second": 0.0}

        self.clock.advance(50.0)
        yield Totals()

    def score(self, batch: object, totals: object) -> None:
        pass


def follow(device: Device, batches: SlowBatches, *, log_every: int = 5, row: float = 0.0, end: float = 0.0) -> Pace:
    """The pace of three epochs whose reader takes `row` seconds for each row, and `end` at the end of an epoch."""
    pace = Pace(batches, asynchronous=device.device > 0)
    events = fit(device, pace, epochs=3, evaluations={"val": SlowBatches(device.clock, 1.0)}, log_every=log_every)
    for event in pace.follow(events):
        device.clock.advance(row if event.row else 0.0)
        device.clock.advance(end if event.row and event.row["split"] == "val" else 0.0)
    return pace


def test_what_sets_up_evaluates_and_comes_between_epochs_is_not_the_pace_of_training(clock: Clock) -> None:
    pace = follow(Device(clock, host=0.75, set_up=9.0), SlowBatches(clock, 0.25), row=0.5, end=30.0)
    steps, rows = 3 * 20 - 2, 3 * 3  # without the first two steps, and the rows that end an epoch
    seconds = steps * 1.0 + rows * 0.5
    assert pace.images_per_second() == pytest.approx(IMAGES * steps / seconds)
    all_seconds = seconds + 3 * (2 * 0.5 + 30)
    assert pace.shares(fixed=0.15) == pytest.approx(
        {
            "data": steps * 0.25 / all_seconds,
            "recording": (rows * 0.5 + 3 * 31) / all_seconds,
            "overhead": steps * 0.15 / all_seconds,
            "computing": steps * 0.6 / all_seconds,
        }
    )
    assert pace.shares(fixed=99.0)["computing"] == 0.0


@pytest.mark.parametrize(("count", "known"), [(3, False), (4, True)])
def test_ten_steady_steps_are_the_fewest_that_tell_a_rate(clock: Clock, count: int, known: bool) -> None:
    pace = follow(Device(clock, host=0.5), SlowBatches(clock, 0.5, count=count))
    assert pace.images_per_second() == (IMAGES if known else None)


def test_the_first_step_is_timed_from_the_start_of_the_process() -> None:
    clock = Clock()
    pace = Pace(SlowBatches(clock, 0.0), asynchronous=False)
    assert pace.to_first_step is None
    next(pace.follow(fit(Device(clock, host=0.0), pace, epochs=1)))
    assert 0 < pace.to_first_step <= process_age()


@pytest.mark.parametrize("log_every", [5, 99])
def test_a_device_that_is_behind_sets_the_pace_and_hides_the_wait_for_data(clock: Clock, log_every: int) -> None:
    pace = follow(Device(clock, host=0.25, device=1.0, set_up=9.0), SlowBatches(clock, 0.25), log_every=log_every)
    stretch = min(log_every, 20)
    assert pace.images_per_second() == pytest.approx(IMAGES * stretch / (0.5 + stretch)), "queued, and then waited for"
    assert pace.shares(fixed=0.0) == {"data": 0.0, "recording": 0.0, "overhead": 0.0, "computing": 1.0}


@pytest.mark.parametrize("log_every", [1, 5, 99])
def test_a_device_without_work_waits_for_data(clock: Clock, log_every: int) -> None:
    pace = follow(Device(clock, host=0.25, device=1.0), SlowBatches(clock, 3.0), log_every=log_every)
    stretch = min(log_every, 20)
    seconds = 3.25 * stretch + 1.0  # only the last step of a stretch is waited for
    assert pace.images_per_second() == pytest.approx(IMAGES * stretch / seconds)
    assert pace.shares(fixed=0.0)["data"] == pytest.approx(3.0 * stretch / seconds)


def test_a_data_source_that_starts_slowly_is_waited_for(clock: Clock) -> None:
    class Eager(SlowBatches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[range, range]]:
            self.clock.advance(60.0)
            return super().epoch(epoch, start)

    pace = follow(Device(clock, host=1.0), Eager(clock, 0.0))
    assert pace.shares(fixed=0.0)["data"] == pytest.approx(120 / (120 + 58))


def test_items_come_with_the_time_they_took(clock: Clock) -> None:
    def items():
        for seconds in (3, 4):
            clock.advance(seconds)
            yield str(seconds)

    found = []
    for item, seconds in timed(items()):
        found.append((item, seconds))
        clock.advance(100)  # what is done with an item is not its time
    assert found == [("3", 3.0), ("4", 4.0)]


def words(
    *, waits: tuple[str, ...] = (), making: tuple[str, ...] = (), asynchronous: bool = False, **shares: float
) -> str:
    return bottleneck(
        {"data": 0.0, "recording": 0.0, "overhead": 0.0, "computing": 0.0} | shares,
        operations=85,
        flops_per_second=21.94e9,
        waits=waits,
        making_waits=making,
        asynchronous=asynchronous,
    )


def test_the_largest_share_is_the_bottleneck() -> None:
    assert words(data=0.634, computing=0.366) == "waiting for data, 63 % of the time"
    assert words(recording=0.5, data=0.2, computing=0.3) == (
        "recording, 50 % of the time: see trainer.log_every and trainer.checkpoint_every"
    )
    assert words(overhead=0.7, computing=0.3) == (
        "the batch is too small: 70 % of the time is the overhead of 85 operations a step and the update of the "
        "weights, not arithmetic; raise data.batch_size"
    )
    assert "a step, not arithmetic" in words(overhead=0.7, computing=0.3, asynchronous=True), "updates are queued"
    assert words(data=0.4, overhead=0.15, computing=0.45) == "computing, 45 % of the time, at 21.9 GFLOP/s"


def test_what_reads_results_in_a_step_is_named_with_its_place() -> None:
    assert words(computing=1.0, waits=("losses.py:12",)) == (
        "computing, 100 % of the time, at 21.9 GFLOP/s; "
        "losses.py:12 reads a result in every step, which would make a GPU wait for the host"
    )
    places = ("a.py:1", "b.py:2", "a.py:1")
    assert words(data=1.0, waits=places, asynchronous=True) == (
        "waiting for data, 100 % of the time; "
        "a.py:1 (and 1 more) reads a result in every step, which makes the device wait for the host"
    )
    assert words(computing=1.0, waits=("a.py:1",), making=("b.py:2", "c.py:3"), asynchronous=True) == (
        "computing, 100 % of the time, at 21.9 GFLOP/s; "
        "a.py:1 reads a result in every step, which makes the device wait for the host; "
        "b.py:2 (and 1 more) reads a result in the making of every batch, which makes the device wait for the host"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.00 B"), (999, "999 B"), (1e3, "1.00 kB"), (21.94e9, "21.9 GB"), (611e6, "611 MB"), (7.9e14, "790 TB")],
)
def test_quantities_have_three_digits(value: float, expected: str) -> None:
    assert quantity(value, "B") == expected
