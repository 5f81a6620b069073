"""What the bits of a run depend on besides its configuration and its data."""

import hashlib
from typing import Any

import torch

import dltrain
from dltrain.build import Run
from dltrain.engine.device import describe, threads

ALONE = {"ranks": 1, "strategy": "ddp"}  # of runs from before there was a choice


def execution(run: Run) -> dict[str, Any]:
    """Where and how the steps are computed: what is the same gives the same bits, on CUDA if it is deterministic."""
    device = run.config.device
    return {
        "dltrain": dltrain.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": describe(run.engine.device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads(),
        "precision": run.engine.precision.name,
        "memory_format": str(run.memory_format),
        "ranks": run.engine.ranks.size,
        "strategy": run.engine.strategy.name,
        **{key: device[key] for key in ("tf32", "deterministic", "graphs", "compile")},
    }


def random_digests(run: Run, step: int) -> dict[str, str]:
    """Digests of the order of an epoch and of what a step draws.

    Both are functions of the seed; where they differ, random numbers are drawn otherwise than they were.
    """
    batches = run.batches["train"]
    return {"order": batches.order_digest(step // len(batches)), "draws": _digest(run.engine.drawn(step))}


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()
