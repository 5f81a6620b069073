"""What a run depends on besides its configuration, and how long the process has lived."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("dltrain", "torch", "torchvision", "hydra-core", "omegaconf", "numpy", "safetensors")
IMPORTED = time.time()


def environment(**facts: Any) -> dict[str, Any]:
    """Versions, machine, command line and git state, and the facts given."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(PACKAGES),
        **facts,
        "git": git_state(Path(__file__).parent),
    }


def with_earlier(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The environment of now, and under `earlier` those of a run's earlier parts, where they differ from the next."""
    if before is None:
        return now
    earlier = before.pop("earlier", [])
    if {**before, "command": None} != {**now, "command": None}:
        earlier = [*earlier, before]
    return {**now, "earlier": earlier} if earlier else now


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and uncommitted changes of the checkout that holds a folder; null outside one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") or ""
    return {"commit": commit, "changed": [line[3:] for line in changed.splitlines()]}


def process_age() -> float:
    """Seconds since this process started; where that cannot be told, since dltrain was imported."""
    since_import = time.time() - IMPORTED
    stat = Path("/proc/self/stat")
    if not stat.is_file():
        return since_import
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return max(uptime - ticks / os.sysconf("SC_CLK_TCK"), since_import)  # some containers count uptime from their own


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The version of each package, null where it is not installed."""
    return {name: _version(name) for name in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None
