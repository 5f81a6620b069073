"""How many jobs run at a time, and on what."""

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltrain.config.errors import ConfigError

BYTES_A_RANK = 2 * 2**30  # about what a ResNet-18 at 96 pixels takes on a CPU


@dataclass(frozen=True)
class Slot:
    """A place for one job: the CPU threads that the ranks of one that names none share, and of GPUs their names.

    The names are as CUDA_VISIBLE_DEVICES is to have them.
    """

    threads: int | None = None
    gpus: tuple[str, ...] = ()


def slots(configs: Sequence[Any]) -> list[Slot]:
    """The places for the jobs of these configurations, of which the first one's `sweep` counts.

    Each is for the job with the most ranks. As many GPUs as those have one place, or `sweep.jobs_per_gpu`. On a CPU a
    rank has `device.threads`; where that is null, each of `auto` jobs has a thread a rank or more, so that all cores
    are used and none is shared. Raises ConfigError where there are too few devices for a job.
    """
    sweep, jobs = configs[0].sweep, len(configs)
    devices = {config.device.name for config in configs}
    ranks = max(config.device.count for config in configs)
    if devices & {"auto", "cuda"} and (gpus := visible_gpus()):
        _check(ranks, len(gpus), "cuda")
        groups = [tuple(gpus[first : first + ranks]) for first in range(0, len(gpus) - ranks + 1, ranks)]
        places = [Slot(gpus=group) for _ in range(sweep.jobs_per_gpu) for group in groups]
        return places[: min(jobs, len(places) if sweep.jobs == "auto" else sweep.jobs)]
    if "mps" in devices or ("auto" in devices and (platform.system(), platform.machine()) == ("Darwin", "arm64")):
        _check(ranks, 1, "mps")
        return [Slot()] * (1 if sweep.jobs == "auto" else min(jobs, sweep.jobs))
    cores = available_cores()
    threads = max((config.device.threads or 0) * config.device.count for config in configs)
    room = min(cores // max(ranks, threads), _free_memory() // (ranks * BYTES_A_RANK))
    count = max(1, min(jobs, room if sweep.jobs == "auto" else sweep.jobs))
    return [Slot(max(ranks, threads or cores // count))] * count


def _check(ranks: int, there: int, kind: str) -> None:
    """Refuse a job with more ranks than there are devices. Raises ConfigError."""
    if ranks > there:
        raise ConfigError(f"device.count={ranks}: there {'are' if there > 1 else 'is'} {there} {kind} here")


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES would name each GPU; asked of nvidia-smi, since CUDA must not begin in this process."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Bytes; much where the system does not tell."""
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    available = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return int(available) * 1024 if available else 2**40
