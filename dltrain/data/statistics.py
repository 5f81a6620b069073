"""The mean and deviation that inputs are standardized with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .stored import Rows, Stored, as_tensor

KINDS = ("channel", "feature", "none")

# The sum of so many squares of bytes is below 2^24, so float32 adds them exactly.
EXACT_ROWS = (1 << 24) // 255**2


def mean_and_deviation(images: Stored, *, standardize: str = "channel") -> tuple[Tensor, Tensor]:
    """Mean and population deviation of images uint8 (N, C, H, W), in grey levels of 0 to 255.

    By channel (C, 1, 1), by feature (C, H, W), or 0 and 255 for "none" (C, 1, 1), which maps grey levels to 0..1.
    A deviation of 0 becomes 1.
    """
    if standardize not in KINDS:
        raise ValueError(f"data.standardize={standardize}: choose one of {', '.join(KINDS)}")
    count, channels, height, width = images.shape
    if standardize == "none":
        return torch.zeros(channels, 1, 1), torch.full((channels, 1, 1), 255.0)
    sums = _sums_by_channel if standardize == "channel" else _sums_by_feature
    total, total_of_squares = sums(images)
    if standardize == "channel":
        count *= height * width
    mean = total / count
    variance = total_of_squares / count - mean.square()
    # Float64 leaves some 1e-11 of a constant feature's variance; the least real one is about 1 / count.
    deviation = torch.where(variance > 1e-9, variance, 1.0).sqrt()
    return mean.float(), deviation.float()


def grey_level(images: np.ndarray | Rows, *, sample: int = 256) -> float:
    """The mean grey level, 0 to 255, of some images that are spread over all."""
    places = np.linspace(0, len(images) - 1, min(sample, len(images))).astype(int)
    return float(images[places].mean())


def of_vectors(values: np.ndarray | Rows, *, standardize: str = "channel") -> tuple[Tensor, Tensor]:
    """Mean and population deviation by feature of numbers (N, features); 0 and 1 for "none".

    A deviation of 0 becomes 1.
    """
    numbers = np.asarray(values[:], dtype=np.float64)
    mean, deviation = numbers.mean(0), numbers.std(0)
    if standardize == "none":
        mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
    deviation = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
    return torch.tensor(mean, dtype=torch.float32), torch.tensor(deviation, dtype=torch.float32)


def _sums_by_channel(images: Stored) -> tuple[Tensor, Tensor]:
    """From the counts of the 256 grey levels, for which no pixel becomes a float."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in _chunks(images):
        counts += torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in chunk.unbind(1)])
    levels = torch.arange(256, dtype=torch.float64)
    total, total_of_squares = (counts.double() @ levels**power for power in (1, 2))
    return total.view(-1, 1, 1), total_of_squares.view(-1, 1, 1)


def _sums_by_feature(images: Stored) -> tuple[Tensor, Tensor]:
    total = torch.zeros(*images.shape[1:], dtype=torch.float64)
    total_of_squares = torch.zeros_like(total)
    for chunk in _chunks(images):
        values = chunk.float()
        total += values.sum(0)
        total_of_squares += values.square_().sum(0)
    return total, total_of_squares


def _chunks(images: Stored) -> Iterator[Tensor]:
    for first in range(0, len(images), EXACT_ROWS):
        yield as_tensor(images[first : first + EXACT_ROWS])
