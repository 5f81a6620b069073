"""Any folder in MNIST's format: four IDX files, plain or gzipped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from . import idx_file
from .dataset import DataError, Dataset, Examples, Progress, cache_folder
from .facts import ImageFacts

__all__ = ["idx"]

PARTS = {"train": "train", "test": "t10k"}


def idx(*, root: str | None = None, folder: str | None = None, class_names: Sequence[str] | None = None) -> IdxDataset:
    """Images and labels in MNIST's format.

    Looked for in `root` alone or, without it, in `folder` of the user's cache. Class names default to
    the ten digits.
    """
    if root is None and folder is None:
        raise ValueError("data.root=null: data=idx needs the folder that holds the four IDX files")
    place = Path(root).expanduser() if root is not None else cache_folder(str(folder))
    return IdxDataset(Folder(place), class_names=class_names or tuple("0123456789"))


class Source(Protocol):
    """Where IDX files come from, by their name without ".gz"."""

    def fetch(self, progress: Progress | None = None) -> None: ...

    def find(self, name: str) -> Path: ...

    def read(self, name: str) -> tuple[np.ndarray, str]:
        """The decoded file, and its SHA-256 (hex)."""


class Folder:
    """IDX files that lie in one folder and are nowhere else."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fetch(self, progress: Progress | None = None) -> None:
        for part in PARTS:
            self.find(images_file(part))
            self.find(labels_file(part))

    def find(self, name: str) -> Path:
        if (path := find_in(self.path, name)) is None:
            what = f"{name} or {name}.gz is missing" if self.path.is_dir() else "no such folder"
            raise DataError(f"{self.path}: {what}; put the four IDX files there, or name their folder with data.root=")
        return path

    def read(self, name: str) -> tuple[np.ndarray, str]:
        return idx_file.read_checked(self.find(name), dimensions=dimensions(name))


class IdxDataset(Dataset):
    """Four IDX files of a source, read as a Dataset."""

    def __init__(self, source: Source, *, class_names: Sequence[str]) -> None:
        self.source = source
        self.class_names = tuple(class_names)
        self._digests: dict[str, str] = {}

    def fetch(self, progress: Progress | None = None) -> None:
        self.source.fetch(progress)

    def facts(self) -> ImageFacts:
        self.fetch()
        shapes = {part: self._shape(part) for part in PARTS}
        if shapes["train"][1:] != shapes["test"][1:]:
            where = self.source.find(images_file("test"))
            raise idx_file.damaged(where, f"images of {shapes['test'][1:]}, in training {shapes['train'][1:]}")
        return ImageFacts(
            in_channels=1,
            image_size=shapes["train"][1],
            class_names=self.class_names,
            num_examples={part: shape[0] for part, shape in shapes.items()},
        )

    def labels(self, part: str = "train") -> np.ndarray:
        self.fetch()
        labels = self._read(labels_file(part))
        if (largest := int(labels.max())) >= len(self.class_names):
            where = self.source.find(labels_file(part))
            raise idx_file.damaged(where, f"label {largest}, the classes are 0 to {len(self.class_names) - 1}")
        return labels.astype(np.int64)

    def load(self) -> dict[str, Examples]:
        self.facts()
        return {part: Examples(self._read(images_file(part))[:, None], self.labels(part)) for part in PARTS}

    def fingerprint(self) -> str:
        assert len(self._digests) == 2 * len(PARTS), "known once load has run"
        return hashlib.sha256("".join(self._digests[name] for name in sorted(self._digests)).encode()).hexdigest()

    def _shape(self, part: str) -> idx_file.Shape:
        path, labels_path = self.source.find(images_file(part)), self.source.find(labels_file(part))
        count, height, width = idx_file.read_shape(path, dimensions=3)
        (labels_count,) = idx_file.read_shape(labels_path, dimensions=1)
        if height != width:
            raise idx_file.damaged(path, f"images of {height}x{width}, only square ones are supported")
        if count != labels_count:
            raise idx_file.damaged(labels_path, f"{labels_count} labels for {count} images")
        return count, height, width

    def _read(self, name: str) -> np.ndarray:
        decoded, self._digests[name] = self.source.read(name)
        return idx_file.parse(decoded)


def images_file(part: str) -> str:
    return f"{PARTS[part]}-images-idx3-ubyte"


def labels_file(part: str) -> str:
    return f"{PARTS[part]}-labels-idx1-ubyte"


def dimensions(name: str) -> int:
    return 3 if "idx3" in name else 1


def find_in(folder: Path, name: str) -> Path | None:
    """The file of this name in a folder, the plain one before the gzipped one."""
    candidates = (folder / name, folder / f"{name}.gz")
    # Unlike Path.exists, this one answers for an unreadable folder too.
    return next((path for path in candidates if os.path.exists(path)), None)  # noqa: PTH110
