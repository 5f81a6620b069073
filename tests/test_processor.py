"""How much of the processor others use."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from dltrain.run.processor import Processor

pytestmark = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs Linux")


def burn(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_own_work_and_that_of_own_children_is_not_others():
    processor, times, begun = Processor(), os.times(), time.perf_counter()
    assert processor.seconds is not None
    child = multiprocessing.get_context("fork").Process(target=burn, args=(0.4,))
    child.start()
    burn(0.4)
    child.join()
    own = (sum(os.times()[:4]) - sum(times[:4])) / (time.perf_counter() - begun)
    # Others may use all the rest; own work must not be counted on top of that.
    assert processor.used_by_others() + own < (os.cpu_count() or 1) + 0.4


def test_what_hinders_is_said(monkeypatch):
    processor = Processor()
    monkeypatch.setattr(Processor, "used_by_others", lambda self: 0.94)
    assert "other processes keep 0.9 of" in processor.words(threads=2)
    assert "device.threads=1" in processor.words(threads=2)
    assert processor.words(threads=1) is None
    monkeypatch.setattr(Processor, "used_by_others", lambda self: 0.1)
    assert processor.words(threads=2) is None


def test_where_nothing_is_told_nothing_is_said(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert Processor().used_by_others() is None
    assert Processor().words(threads=2) is None
