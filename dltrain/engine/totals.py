"""Sums over examples that stay on the device until somebody reads them."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class Totals:
    """Sums of loss and metrics over examples, and the time they took.

    Steps whose loss or gradient was not finite are counted and kept out of the sums.
    """

    def __init__(
        self, names: list[str], device: torch.device, shown: Mapping[str, Callable[[float], float]] | None = None
    ) -> None:
        """`shown` makes of a mean what is read under its name, which is the mean itself where it has nothing."""
        self.names, self.shown = names, shown or {}
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(len(names) + 2, dtype=dtype, device=device)
        self.start = time.perf_counter()

    def clear(self) -> None:
        """Start again from nothing, now."""
        self.sums.zero_()
        self.start = time.perf_counter()

    def add(self, sums: list[Tensor], examples: int, finite: Tensor | None = None) -> None:
        """Add each sum over `examples` examples, but where `finite` is false only count that."""
        kept = torch.ones((), dtype=torch.bool, device=self.sums.device) if finite is None else finite
        entries = [*sums, kept * examples, ~kept]
        step = torch.stack([entry.to(self.sums.dtype) for entry in entries])
        step[:-1].masked_fill_(~kept, 0)
        self.sums += step

    def join(self, other: "Totals") -> None:
        """Add the sums of others over the same names."""
        self.sums += other.sums

    def read(self) -> dict[str, Any]:
        """What is shown of the means, `images_per_second`, and `nonfinite_steps` where there were any.

        Waits for the device.
        """
        *sums, examples, nonfinite = self.sums.tolist()
        seconds = time.perf_counter() - self.start
        means = {
            name: self.shown.get(name, float)(value / examples) if examples else math.nan
            for name, value in zip(self.names, sums, strict=True)
        }
        numbers = {name: mean if math.isfinite(mean) else None for name, mean in means.items()}
        rate = {"images_per_second": examples / seconds}
        return {**numbers, **rate, **({"nonfinite_steps": int(nonfinite)} if nonfinite else {})}

    def nonfinite(self) -> int:
        """Steps whose loss or gradient was not finite. Waits for the device."""
        return int(self.sums[-1])

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that JSON can hold. Waits for the device."""
        return {"sums": self.sums.tolist(), "seconds": time.perf_counter() - self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, now."""
        self.sums.copy_(torch.tensor(state["sums"], dtype=self.sums.dtype))
        self.start = time.perf_counter() - state["seconds"]
