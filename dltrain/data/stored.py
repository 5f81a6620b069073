"""Inputs and targets as they are stored, and some rows of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Rows(Protocol):
    """Examples, of which those are made that a slice or an array of indices asks for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice | np.ndarray, /) -> np.ndarray: ...


class Chosen:
    """Some rows of an array, of which only those are copied that a slice or an array of indices asks for."""

    def __init__(self, values: np.ndarray | Rows, rows: np.ndarray) -> None:
        self.values, self.rows = values, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.rows), *self.values.shape[1:]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        copied: np.ndarray = self.values[self.rows[places]]
        return copied


def are_decoded(values: np.ndarray | Rows) -> bool:
    """Whether all rows are there, and none is made when it is asked for."""
    return isinstance(values, np.ndarray) or (isinstance(values, Chosen) and are_decoded(values.values))


Stored = Tensor | np.ndarray | Rows


def as_tensor(values: Tensor | np.ndarray) -> Tensor:
    """The same memory as a tensor; a copy only where numpy holds it read-only."""
    return values if isinstance(values, Tensor) else torch.from_numpy(np.require(values, requirements="W"))
