"""CIFAR-10 in its binary version.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from .dataset import DataError, Dataset, Examples, Progress, cache_folder
from .facts import ImageFacts

__all__ = ["cifar10"]

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
IMAGE_SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
REMEDY = (
    "get https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, unpack it, "
    f"and name the folder that holds {FOLDER} with data.root="
)


def cifar10(*, root: str | None = None) -> Cifar10:
    """50,000 and 10,000 colour 32x32 images of ten kinds of things.

    Looked for in `root` alone or, without it, in the user's cache: either the folder that the archive
    unpacks to, or the one above.
    """
    return Cifar10(Path(root).expanduser() if root is not None else cache_folder("cifar10"))


class Cifar10(Dataset):
    """A Dataset of files of `records` records: a label's byte, then an image's, channel by channel."""

    def __init__(self, root: Path, *, records: int = 10_000) -> None:
        self.folder = root / FOLDER if (root / FOLDER).is_dir() else root
        self.records = records
        self._digests: list[str] = []

    def fetch(self, progress: Progress | None = None) -> None:
        """Nothing is downloaded; raises DataError where a file is missing or has another size."""
        size = self.records * RECORD_BYTES
        for path in (self.folder / name for names in FILES.values() for name in names):
            if not path.is_file():
                raise DataError(f"{path}: missing, or not a regular file; {REMEDY}")
            if path.stat().st_size != size:
                raise DataError(f"{path}: {path.stat().st_size:,} bytes instead of {size:,}; {REMEDY}")

    def facts(self) -> ImageFacts:
        self.fetch()
        return ImageFacts(
            in_channels=IMAGE_SHAPE[0],
            image_size=IMAGE_SHAPE[1],
            class_names=CLASS_NAMES,
            num_examples={part: self.records * len(names) for part, names in FILES.items()},
        )

    def labels(self, part: str = "train") -> np.ndarray:
        self.fetch()
        columns = [self._checked_labels(name, self._map(name)) for name in FILES[part]]
        return np.concatenate(columns).astype(np.int64)

    def load(self) -> dict[str, Examples]:
        self.fetch()
        self._digests = []
        return {part: self._load_part(names) for part, names in FILES.items()}

    def fingerprint(self) -> str:
        assert self._digests, "known once load has run"
        return hashlib.sha256("".join(self._digests).encode()).hexdigest()

    def _load_part(self, names: tuple[str, ...]) -> Examples:
        images = np.empty((self.records * len(names), *IMAGE_SHAPE), np.uint8)
        labels = np.empty(len(images), np.int64)
        for i, name in enumerate(names):
            records = np.asarray(self._map(name))
            self._digests.append(hashlib.sha256(records.data).hexdigest())
            rows = slice(i * self.records, (i + 1) * self.records)
            labels[rows] = self._checked_labels(name, records)
            images[rows] = records[:, 1:].reshape(-1, *IMAGE_SHAPE)
        return Examples(images, labels)

    def _map(self, name: str) -> np.ndarray:
        return np.memmap(self.folder / name, np.uint8, "r", shape=(self.records, RECORD_BYTES))

    def _checked_labels(self, name: str, records: np.ndarray) -> np.ndarray:
        labels = records[:, 0]
        if (largest := int(labels.max())) >= len(CLASS_NAMES):
            last = len(CLASS_NAMES) - 1
            raise DataError(f"{self.folder / name}: label {largest}, the classes are 0 to {last}; {REMEDY}")
        return labels
