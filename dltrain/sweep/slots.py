"""How many jobs run at a time, and on what."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES_A_JOB = 2 * 2**30  # about what a ResNet-18 at 96 pixels takes on a CPU


@dataclass(frozen=True)
class Slot:
    """A place for one job: the CPU threads of one that names none, and for a GPU what CUDA_VISIBLE_DEVICES is to be."""

    threads: int | None = None
    gpu: str | None = None


def slots(configs: Sequence[Any]) -> list[Slot]:
    """The places for the jobs of these configurations, of which the first one's `sweep` counts.

    A GPU has one, or `sweep.jobs_per_gpu`. On a CPU a job has `device.threads`; where that is null, each of `auto`
    jobs has a thread or more, so that all cores are used and none is shared.
    """
    sweep, jobs = configs[0].sweep, len(configs)
    devices = {config.device.name for config in configs}
    threads = max((config.device.threads or 0 for config in configs), default=0)
    if devices & {"auto", "cuda"} and (gpus := visible_gpus()):
        places = [Slot(gpu=gpu) for _ in range(sweep.jobs_per_gpu) for gpu in gpus]
        return places[: min(jobs, len(places) if sweep.jobs == "auto" else sweep.jobs)]
    if "mps" in devices:
        return [Slot()] * (1 if sweep.jobs == "auto" else min(jobs, sweep.jobs))
    cores = available_cores()
    room = min(cores // (threads or 1), _free_memory() // BYTES_A_JOB)
    count = max(1, min(jobs, room if sweep.jobs == "auto" else sweep.jobs))
    return [Slot(threads or max(1, cores // count))] * count


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
