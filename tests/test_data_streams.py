"""Streamed batches are the resident ones to the last bit, and their workers outlive signals but not the run."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from helpers import LITTLE, rows, summary, train

from dltrain import build as build_module
from dltrain.build import supply
from dltrain.config.compose import compose
from dltrain.data.augment import crop_flip
from dltrain.data.batches import Batches
from dltrain.data.preparation import AsStored, Pixels
from dltrain.data.statistics import mean_and_deviation
from dltrain.data.stored import Chosen
from dltrain.engine.device import free_memory
from dltrain.verbs import _start

COUNT = 45
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 2, 8, 8)).astype(np.uint8)
LABELS = np.arange(COUNT)
SHORT = ("model=mlp", "trainer.epochs=2", "trainer.limit_train_batches=3", "augment=crop_flip")
AUGMENTED = {"shuffle": True, "augment": crop_flip(padding=2), "image_size": 12}


@pytest.fixture
def serving():
    """Makes batches of 45 examples, and ends their workers after the test."""
    made = []

    def make(workers, images=IMAGES, **changes):
        pixels = {"image_size": 8, "mean": torch.full((2, 1, 1), 9.0), "deviation": torch.full((2, 1, 1), 7.0)}
        how = Pixels(**{key: changes.pop(key, value) for key, value in pixels.items()})
        made.append(Batches(images, LABELS, **{"batch_size": 10, "workers": workers, "prepare": how, **changes}))
        return made[-1]

    yield make
    for each in made:
        each.close()
    assert not multiprocessing.active_children()


def same(found, expected):
    """Whether two epochs serve the same batches to the last bit."""
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    return all(torch.equal(a, b) for pair in zip(found, expected, strict=True) for a, b in zip(*pair, strict=True))


class Watched(Chosen):
    """Images that remember which of them were read."""

    def __init__(self):
        super().__init__(IMAGES, np.arange(COUNT))
        self.read = []

    def __getitem__(self, places):
        self.read += self.rows[places].tolist()
        return super().__getitem__(places)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize(
    "changes",
    [{}, {"shuffle": True}, AUGMENTED, {**AUGMENTED, "limit": 3}, {**AUGMENTED, "overfit": 2, "limit": 5}],
    ids=["in order", "shuffled", "augmented", "limited", "overfit"],
)
def test_streamed_batches_are_the_resident_ones(serving, workers, changes):
    streamed, resident = serving(workers, **changes), serving(None, **changes)
    assert (len(streamed), streamed.num_examples) == (len(resident), resident.num_examples)
    for epoch in (0, 1):
        assert same(streamed.epoch(epoch), resident.epoch(epoch))
    assert not same(streamed.epoch(0), serving(None, **{**changes, "mean": torch.zeros(1)}).epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_start_in_the_middle_and_be_left_there(serving, workers):
    streamed, resident = serving(workers, **AUGMENTED), serving(None, **AUGMENTED)
    for start in (2, 4, 0, 5):
        assert same(streamed.epoch(3, start), resident.epoch(3, start))
        assert same(islice(streamed.epoch(3), 1), islice(resident.epoch(3), 1))


def test_what_is_passed_over_is_never_read(serving):
    images = Watched()
    served = [labels for _, labels in serving(0, images=images, shuffle=True).epoch(1, 3)]
    assert images.read == torch.cat(served).tolist()
    assert len(images.read) == 15


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_was_taken_over_says_so(serving, workers):
    streamed = serving(workers)
    first = streamed.epoch(0)
    next(first)
    next(streamed.epoch(1))
    with pytest.raises(AssertionError, match="begun later"):
        next(first)


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_generator_is_touched(serving, workers):
    def states():
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    for epoch in (0, 1):
        list(serving(workers, **AUGMENTED).epoch(epoch))
    assert states() == before


def test_the_workers_serve_all_epochs_whatever_signals_come(serving):
    streamed, resident = serving(2, **AUGMENTED), serving(None, **AUGMENTED)
    next(streamed.epoch(0))
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    list(streamed.epoch(1))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for worker in workers:
            os.kill(worker.pid, number)
    time.sleep(0.2)
    assert same(streamed.epoch(2), resident.epoch(2))
    assert multiprocessing.active_children() == workers


def test_the_workers_end_when_they_are_told_and_start_anew(serving):
    streamed, resident = serving(2, **AUGMENTED), serving(None, **AUGMENTED)
    epoch = streamed.epoch(0)
    next(epoch)
    for _ in range(2):
        streamed.close()
        assert not multiprocessing.active_children()
    assert same(streamed.epoch(1), resident.epoch(1))


def test_the_workers_end_with_their_batches():
    def serve():
        batches = Batches(IMAGES, LABELS, batch_size=10, prepare=AsStored(), workers=2)
        list(batches.epoch(0))
        assert len(multiprocessing.active_children()) == 2

    serve()
    assert not multiprocessing.active_children()


def test_python_exits_though_an_epoch_was_left_and_nothing_closed(tmp_path):
    program = (
        "import multiprocessing, numpy; from dltrain.data.batches import Batches\n"
        "from dltrain.data.preparation import AsStored\n"
        "images = numpy.zeros((40, 1, 8, 8), numpy.uint8)\n"
        "kept = Batches(images, numpy.arange(40), batch_size=2, prepare=AsStored(), workers=2)\n"
        "epoch = kept.epoch(0)\n"
        "next(epoch)\n"
        "print(*(child.pid for child in multiprocessing.active_children()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert len(done.stdout.split()) == 2
    for pid in map(int, done.stdout.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_signal_at_birth_kills_no_worker(serving, monkeypatch):
    fork = os.fork

    def signalling_fork():
        if child := fork():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(child, number)
        return child

    monkeypatch.setattr(os, "fork", signalling_fork)
    assert same(serving(2).epoch(0), serving(None).epoch(0))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_forking_among_threads_warns_nobody(serving, monkeypatch):
    fork = os.fork

    def warning_fork():
        warnings.warn("use of fork() may lead to deadlocks in the child", DeprecationWarning, stacklevel=2)
        return fork()

    monkeypatch.setattr(os, "fork", warning_fork)
    assert same(serving(2).epoch(0), serving(None).epoch(0))


def test_read_only_images_on_disk_are_never_copied_whole(serving, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (3000, 2, 64, 64)).astype(np.uint8)
    values.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=values.shape)
    images = Chosen(mapped, np.arange(COUNT) * 60)
    tracemalloc.start()
    try:
        for all_or_some in (mapped, Chosen(mapped, np.arange(3000))):
            statistics = mean_and_deviation(all_or_some)
        streamed = serving(0, images=images, **AUGMENTED)
        found = list(streamed.epoch(0))
        assert tracemalloc.get_traced_memory()[1] < values.nbytes / 5
    finally:
        tracemalloc.stop()
    assert all(torch.equal(a, b) for a, b in zip(statistics, mean_and_deviation(values), strict=True))
    assert same(found, serving(None, images=values[::60][:COUNT], **AUGMENTED).epoch(0))


@pytest.mark.parametrize(("limit", "workers"), [(99, 2), (100, None), ("null", None), (0, 2)])
def test_what_does_not_fit_is_streamed(monkeypatch, limit, workers):
    monkeypatch.setattr(supply, "free_memory", lambda device: 2 * 700 * 784)
    counts = ("data=synthetic", "data.num_train=640", "data.num_test=60", "data.val_size=64", "device=cpu", "model=mlp")
    size = limit if limit == "null" else 700 * 784 * limit // 100
    run = build_module.build(compose([*counts, f"data.resident_limit={size}"]).config)
    assert {serving.workers for serving in run.batches.values()} == {workers}


def test_free_memory_is_some_of_all():
    assert 0 < free_memory(torch.device("cpu")) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_run_gives_the_same_weights_and_rows(workers):
    resident = train(*SHORT, name="resident")
    streamed = train(*SHORT, "data.resident_limit=1", f"data.workers={workers}", name="streamed")
    assert summary(streamed)["weights_sha256"] == summary(resident)["weights_sha256"]
    for found, expected in zip(rows(streamed), rows(resident), strict=True):
        assert [found[key] for key in ("split", "step", "loss", "accuracy")] == [
            expected[key] for key in ("split", "step", "loss", "accuracy")
        ]
    assert not multiprocessing.active_children()
    by = "2 workers" if workers else "the training process"
    assert f"images  streamed from memory by {by}: 599 kB do not fit data.resident_limit=1\n" in log(streamed)
    assert "images  599 kB resident on the device\n" in log(resident)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an error leaves the record open
@pytest.mark.parametrize("code", [0, 1])
def test_a_run_ends_its_workers_however_it_ends(monkeypatch, code):
    runs = []  # keeps what would otherwise end with its last reference

    def fail(epoch):
        raise RuntimeError("broken")

    def build(config, **how):
        runs.append(build_module.build(config, **how))
        if code:
            monkeypatch.setattr(runs[0].engine, "report", fail)
        return runs[0]

    monkeypatch.setattr(_start, "build", build)
    train(*SHORT, "data.resident_limit=0", expected=code)
    assert not multiprocessing.active_children()


def log(folder):
    return (folder / "train.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_to_the_whole_group_ends_a_run_that_streams(tmp_path, number, code):
    endless = [*LITTLE, "model=mlp", "trainer.epochs=100000", "data.resident_limit=0", "outputs_dir=outputs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dltrain", *endless, "name=run"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    record = tmp_path / "outputs/runs/run/metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (record.is_file() and record.stat().st_size):
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
    assert summary(tmp_path / "outputs/runs/run")["status"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
