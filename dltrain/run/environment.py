"""What a run depends on besides its configuration, and how long the process has lived."""

import difflib
import hashlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("dltrain", "torch", "torchvision", "hydra-core", "omegaconf", "numpy", "safetensors")
CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("dltrain", "conf")
MOST_DIFF = 200_000
IMPORTED = time.time()
INITIAL_WEIGHTS = "initial_weights_sha256"


def environment(**facts: Any) -> dict[str, Any]:
    """Versions, machine, command line and git state, and the facts given."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(PACKAGES),
        **facts,
        "git": git_state(CHECKOUT, CODE) if (CHECKOUT / "pyproject.toml").is_file() else None,
    }


def with_earlier(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """The environment of now, and under `earlier` those of a run's earlier parts, where they differ from the next.

    What the run began with stays: a part that goes on from a checkpoint does not read it.
    """
    if before is None:
        return now
    if INITIAL_WEIGHTS in before:
        now = {INITIAL_WEIGHTS: before[INITIAL_WEIGHTS], **now}
    earlier = before.pop("earlier", [])
    if {**before, "command": None} != {**now, "command": None}:
        earlier = [*earlier, before]
    return {**now, "earlier": earlier} if earlier else now


def git_state(folder: Path, paths: Sequence[str] = (".",)) -> dict[str, Any] | None:
    """Commit of the checkout that a folder is in, and how the paths below it differ from that; null outside one.

    `changed` names the files, untracked ones too. `diff` is what differs, up to MOST_DIFF characters, and `diff_sha256`
    the digest of all of it; null where nothing does.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    lines = (_git(folder, "status", "--porcelain", "--untracked-files=all", "--", *paths) or "").splitlines()
    state: dict[str, Any] = {"commit": commit, "changed": [line[3:] for line in lines]}
    if not lines:
        return {**state, "diff": None, "diff_sha256": None}
    tracked = _git(folder, "diff", "HEAD", "--relative", "--no-color", "--no-ext-diff", "--", *paths) or ""
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths) or ""
    new = "".join(_as_added(folder, name) for name in untracked.split("\0") if name)
    diff = f"{tracked}\n{new}"
    cut = f"\n[cut here: {len(diff):,} characters in all]\n" if len(diff) > MOST_DIFF else ""
    digest = hashlib.sha256(diff.encode()).hexdigest()
    return {**state, "diff": diff[:MOST_DIFF] + cut, "diff_sha256": digest}


def _as_added(folder: Path, name: str) -> str:
    """An untracked file as a diff would show it; nothing where it cannot be read."""
    try:
        lines = (folder / name).read_text(errors="replace").splitlines(keepends=True)
    except OSError:
        return ""
    return "".join(difflib.unified_diff([], lines, "/dev/null", f"b/{name}"))


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
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return None
    return done.stdout.rstrip("\n") if done.returncode == 0 else None
