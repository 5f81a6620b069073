"""Sums over examples that stay on the device until somebody reads them."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dltrain.engine.ranks import Ranks


class Totals:
    """Sums of loss and metrics over examples, and the time they took.

    Steps whose loss or gradient was not finite are counted and kept out of the sums. With several ranks each adds up
    its own, and they are summed when they are read, to which all ranks must come.
    """

    def __init__(
        self,
        names: list[str],
        device: torch.device,
        shown: Mapping[str, Callable[[float], float]] | None = None,
        *,
        ranks: Ranks | None = None,
    ) -> None:
        """`shown` makes of a mean what is read under its name, which is the mean itself where it has nothing."""
        self.names, self.shown, self.ranks = names, shown or {}, ranks or Ranks()
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(len(names) + 2, dtype=dtype, device=device)
        self.start = time.perf_counter()

    def clear(self) -> None:
        """Start again from nothing, now."""
        self.sums.zero_()
        self.start = time.perf_counter()

    def add(self, sums: list[Tensor], examples: int, finite: Tensor | None = None, *, own: bool = True) -> None:
        """Add each sum over `examples` examples, but where `finite` is false only count that; so where not `own`."""
        kept = torch.ones((), dtype=torch.bool, device=self.sums.device) if finite is None else finite
        entries = [*sums, kept * examples, ~kept]
        step = torch.stack([entry.to(self.sums.dtype) for entry in entries])
        step[:-1].masked_fill_(~kept if own else torch.ones_like(kept), 0)
        self.sums += step

    def join(self, other: "Totals") -> None:
        """Add the sums of others over the same names."""
        self.sums += other.sums

    def read(self, *, own: bool = False) -> dict[str, Any]:
        """What is shown of the means, `images_per_second`, and `nonfinite_steps` where there were any.

        Waits for the device. Those of this rank's `own` sums need no other one.
        """
        *sums, examples, nonfinite = self.sums.tolist() if own else self._common()
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

    def _common(self) -> list[float]:
        """The sums over ranks; of steps that were not finite every rank has counted each."""
        *sums, nonfinite = self.ranks.total(self.sums).tolist()
        return [*sums, nonfinite / self.ranks.size]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that JSON can hold. Waits for the device."""
        each = {"each_rank": self.ranks.gather(self.sums.tolist())} if self.ranks.size > 1 else {}
        return {"sums": self._common(), "seconds": time.perf_counter() - self.start, **each}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, now."""
        of_ranks = state.get("each_rank", [state["sums"]])
        if len(of_ranks) == self.ranks.size:
            sums = of_ranks[self.ranks.rank]
        else:  # one goes on with the sums; how many steps were not finite, all know
            sums = state["sums"] if self.ranks.leads else [*[0.0] * (len(state["sums"]) - 1), state["sums"][-1]]
        self.sums.copy_(torch.tensor(sums, dtype=self.sums.dtype))
        self.start = time.perf_counter() - state["seconds"]
