"""What every data set answers: facts before anything is decoded, then labels, then images."""

from __future__ import annotations

import hashlib
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from .facts import Facts
from .sharing import Team
from .stored import Rows

Progress = Callable[[int, int], None]


class DataError(Exception):
    """Data that cannot be used, said in one line: what, where, what to do.

    `exit_code` is 66 where data that was named or found is missing, damaged or empty, and 69 where nothing
    was found and no download verifies.
    """

    def __init__(self, message: str, *, exit_code: int = 66) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


@dataclass(frozen=True)
class Examples:
    """Inputs such as images uint8 (N, C, H, W), and targets such as labels int64 (N,)."""

    inputs: np.ndarray | Rows
    targets: np.ndarray


class Dataset(Protocol):
    """Each method raises DataError; the parts are "train" and, where there are such, "val" and "test".

    A class over this one has what it leaves out.
    """

    def divide(self, team: Team) -> None:
        """Be told, before anything is asked, of the ranks that load it together; each may then do its part."""
        return

    def fetch(self, progress: Progress | None = None) -> None:
        """Get what is missing, where it can be got; `progress(done_bytes, total_bytes)` is told."""
        return

    @abstractmethod
    def facts(self) -> Facts:
        """Read from headers and listings alone, without decoding an image."""

    def labels(self, part: str = "train") -> np.ndarray:
        """Labels of one part, int64 (N,), read alone where that can be."""
        return self.load()[part].targets

    @abstractmethod
    def load(self) -> dict[str, Examples]:
        """Decode and verify every part."""

    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything decoded, or over such; known once `load` has run."""
        return digest(self.load())


def digest(parts: Mapping[str, Examples]) -> str:
    """SHA-256 (hex) of all images and labels."""
    sha256 = hashlib.sha256()
    for examples in parts.values():
        sha256.update(np.ascontiguousarray(examples.inputs[:]).data)
        sha256.update(np.ascontiguousarray(examples.targets).data)
    return sha256.hexdigest()


def cache_folder(name: str) -> Path:
    """Where `name` is kept for this user; the folder need not exist."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    usual = Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser()
    return (given if given.is_absolute() else usual) / "dltrain" / name
