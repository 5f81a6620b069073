"""How many jobs run at a time, and on what."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES_A_JOB = 2 * 2**30  # about what a ResNet-18 at 96 pixels takes on a CPU


@dataclass(frozen=True)
class Slot:
    """A place for one job: CPU threads (None: as the job has it), and for a GPU what CUDA_VISIBLE_DEVICES is to be."""

    threads: int | None = None
    gpu: str | None = None


def slots(config: Any, *, jobs: int) -> list[Slot]:
    """The places for so many jobs of a configuration.

    A GPU has one, or `sweep.jobs_per_gpu`. On a CPU a job has `device.threads`; where that is null, each of `auto`
    jobs has a thread or more, so that all cores are used and none is shared.
    """
    wanted, threads = config.sweep.jobs, config.device.threads
    if config.device.name in ("auto", "cuda") and (gpus := visible_gpus()):
        places = [Slot(threads, gpu) for _ in range(config.sweep.jobs_per_gpu) for gpu in gpus]
        return places[: min(jobs, len(places) if wanted == "auto" else wanted)] or places[:1]
    if config.device.name == "mps":
        return [Slot(threads)] * (1 if wanted == "auto" else min(jobs, wanted))
    cores = available_cores()
    count = wanted
    if wanted == "auto":
        count = min(cores // (threads or 1), _free_memory() // BYTES_A_JOB)
    count = max(1, min(jobs, count))
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
