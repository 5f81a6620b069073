"""What a machine can do at most: its rate of matrix products, and how fast it copies memory."""

import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import dltrain
from dltrain.data.dataset import cache_folder
from dltrain.engine.device import describe
from dltrain.run.environment import CHECKOUT, CODE, git_state, versions
from dltrain.run.folder import read_json, write_json

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WAKING = 0.3  # seconds
PACKAGES = ("torch", "torchvision", "lightning", "timm")


def machine(device: torch.device, *, again: bool = False) -> dict[str, Any]:
    """Rates of this device with these threads and this torch: measured once, then read from the user's cache."""
    path = cache_folder("machine.json")
    key = f"{describe(device)}, torch {torch.__version__}"
    if device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:  # it changes the rate of float32
        key += ", tf32"
    known = read_json(path) or {}
    cached = not again and key in known and set(known[key]["matmul_flops_per_second"]) == set(dtypes(device))
    if not cached:
        known[key] = {
            "matmul_flops_per_second": {name: matmul_rate(device, dtype) for name, dtype in dtypes(device).items()},
            "copy_bytes_per_second": copy_rate(device),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
    facts = {"device": describe(device), **known[key], "cached": cached}
    return {**facts, "python": platform.python_version(), "packages": packages()}


def dtypes(device: torch.device) -> dict[str, torch.dtype]:
    """The number formats that are measured on a device: nobody trains in float16 on a CPU."""
    return {name: dtype for name, dtype in DTYPES.items() if name != "fp16" or device.type == "cuda"}


def packages() -> dict[str, str]:
    """Versions of the packages that are compared, where they are installed; ours with the commit of a checkout."""
    found = {"dltrain": dltrain.__version__}
    found |= {name: version for name, version in versions(PACKAGES).items() if version}
    if git := git_state(CHECKOUT, CODE):
        found["dltrain"] += f" at {git['commit'][:7]}" + (" and changes" if git["changed"] else "")
    return found


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / fastest(lambda: left @ right, device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.zeros(2**31 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source), device)


def fastest(work: Callable[[], Any], device: torch.device, *, repeats: int = 7) -> float:
    """Seconds that some work takes when nothing else disturbs it, and a GPU that had nothing to do has its clock up."""
    start = time.perf_counter()
    work()
    while device.type == "cuda" and time.perf_counter() - start < WAKING:
        stopwatch(work, device)
    return min(stopwatch(work, device) for _ in range(repeats))


def stopwatch(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until some work is done, on the device too."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def write_results(folder: Path, device: str, record: dict[str, Any], *, by_model: bool = False) -> Path:
    """Write what was seen on a device on `record["date"]`; returns the file.

    With `by_model`, results of other models stay in it that were seen on that day with the same versions and rates, so
    that models may be measured one by one.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower().replace("(r)", "")).strip("-")
    path = folder / f"{slug}-{record['date']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, with_others(record, read_json(path)) if by_model else record)
    return path


def with_others(record: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """The results of a bench, and an earlier one's of other models where it had the same machine and versions."""
    if earlier is None or {**earlier["machine"], "cached": None} != {**record["machine"], "cached": None}:
        return record
    new = {result["model"] for result in record["results"]}
    return {**record, "results": [each for each in earlier["results"] if each["model"] not in new] + record["results"]}
