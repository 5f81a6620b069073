"""What all tests share: the flag for long ones, one thread, and folders of their own."""

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which torch reads once, at the first product on a GPU
torch.set_num_threads(1)  # two test processes share two cores; more threads would wait for each other

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests too")
    parser.addoption("--update-golden", action="store_true", help="write the golden losses anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marks = {
        "long": (not config.getoption("--long"), "takes minutes: --long runs it"),
        "gpu": (not torch.cuda.is_available(), "needs a CUDA device"),
    }
    for item in items:
        for name, (skipped, reason) in marks.items():
            if skipped and name in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have measured and recorded as the property `shown`."""
    for report in [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]:
        for line in [value for name, value in report.user_properties if name == "shown"]:
            terminalreporter.write_line(str(line))


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache and a working directory of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
