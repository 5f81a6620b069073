"""Which device computes, and how it is set up."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

THRESHOLDS = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}


class DeviceError(Exception):
    """A device that was asked for is not there, or cannot do what was asked."""

    exit_code = 78


def available() -> list[str]:
    """The kinds of device this machine has, the fastest first."""
    kinds = []
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return [*kinds, "cpu"]


def select(name: str) -> torch.device:
    """The device of a name, `auto` being the fastest there is. Raises DeviceError."""
    kinds = available()
    if name == "auto":
        return torch.device(kinds[0])
    if name not in kinds:
        raise DeviceError(f"device={name}: there is no {name} device here; there is: {', '.join(kinds)}")
    return torch.device(name)


def configure(device: torch.device, *, threads: int | None, tf32: bool, deterministic: bool) -> None:
    """Set the process-wide switches of torch, and on a CPU those of its memory."""
    if device.type == "cpu":
        keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    # The older names set the newer ones, too; those alone would leave torch at odds, and who asks is refused an answer.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the call itself imports for a second
        torch.use_deterministic_algorithms(deterministic)


@contextmanager
def tuning(*, when: bool) -> Iterator[None]:
    """Have cuDNN try which kernels are fastest for a shape that is new to it only when that is worth it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and when
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_freed_memory() -> None:
    """Have the C library keep what torch frees, and not hand it back to the system.

    A step frees large tensors that the next one wants again, and each page that comes anew is cleared by the system
    when it is first touched, which took up to half of a step. For good, and glibc's alone; what the user has set stays.
    Source: mallopt(3).
    """
    trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not THRESHOLDS & os.environ.keys():
        mallopt(mmap_threshold, 2**30) or mallopt(mmap_threshold, 2**25)  # the most that older ones take
        mallopt(trim_threshold, -1)  # never


def describe(device: torch.device) -> str:
    """The device in words: the GPU's name, or the processor and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"{_processor()}, {threads()} thread{'s' if threads() > 1 else ''}"


def threads() -> int:
    """The CPU threads that torch computes with."""
    return torch.get_num_threads()


def cpu_flags() -> set[str]:
    """The processor's instruction sets as Linux names them; empty elsewhere."""
    return set(_line("/proc/cpuinfo", "flags").split())


def _processor() -> str:
    return _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _line(file: str, key: str) -> str:
    """What follows a key in a file of Linux; empty elsewhere."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def default_generator(device: torch.device) -> torch.Generator:
    """The one that dropout and the like draw from."""
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator


def best_memory_format(model: nn.Module, device: torch.device, *, precision: str) -> torch.memory_format:
    """channels_last where convolutions are wide enough to gain by it, which LeNet's 6 and 16 channels are not.

    Not for float32 on a CPU: there torch's batch norm sums one value after the other in that format, and a ResNet's
    gradients are off by 6e-3 of their norm in place of 1e-3.
    """
    if device.type == "cpu" and precision == "fp32":
        return torch.contiguous_format
    widest = max((module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)), default=0)
    return torch.channels_last if widest >= 32 and device.type != "mps" else torch.contiguous_format


def compile_model(model: nn.Module, *, mode: str, cache: Path) -> None:
    """Have torch.compile make the model's kernels, which are kept in a folder for the next time; not with mode `off`.

    A shape of batch has kernels of its own. `max-autotune` leaves CUDA graphs to the engine, which has its own.
    """
    if mode == "off":
        return
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    model.compile(mode="max-autotune-no-cudagraphs" if mode == "max-autotune" else mode, dynamic=False)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the GPU or, for another device, in the machine; all of them where it does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = _line("/proc/meminfo", "MemAvailable").removesuffix(" kB")
    return int(available) * 1024 if available else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory(device: torch.device) -> int:
    """The most bytes held at once: of the GPU's allocator, or of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
