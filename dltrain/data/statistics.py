"""The mean and deviation that inputs are standardized with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .sharing import Alone, Team
from .stored import Rows, Stored, as_tensor

KINDS = ("channel", "feature", "none")

# The sum of so many squares of bytes is below 2^24, so float32 adds them exactly.
EXACT_ROWS = (1 << 24) // 255**2


def mean_and_deviation(
    images: Stored, *, standardize: str = "channel", team: Team | None = None
) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of images uint8 (N, C, H, W), in grey levels of 0 to 255.

    Each rank of a team reads a share of the images, and all have the same bits as one that reads them alone.

    By channel (C, 1, 1), by feature (C, H, W), or 0 and 255 for "none" (C, 1, 1), which maps grey levels to 0..1.
    A deviation of 0 becomes 1.
    """
    if standardize not in KINDS:
        raise ValueError(f"data.standardize={standardize}: choose one of {', '.join(KINDS)}")
    count, channels, height, width = images.shape
    if standardize == "none":
        return torch.zeros(channels, 1, 1), torch.full((channels, 1, 1), 255.0)
    team, by_channel = team or Alone(), standardize == "channel"
    count_up = _levels_by_channel if by_channel else _sums_by_feature
    counted = torch.stack(team.each(lambda: count_up(images, *team.share(0, len(images), least=0)))).sum(0)
    total, total_of_squares = _sums_of_levels(counted) if by_channel else counted
    if by_channel:
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


def _levels_by_channel(images: Stored, first: int, last: int) -> Tensor:
    """Counts (C, 256) of the grey levels, for which no pixel becomes a float."""
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in _chunks(images, first, last):
        counts += torch.stack([torch.bincount(channel.reshape(-1), minlength=256) for channel in chunk.unbind(1)])
    return counts


def _sums_of_levels(counts: Tensor) -> tuple[Tensor, ...]:
    """Sums (C, 1, 1) of grey levels and of their squares."""
    levels = torch.arange(256, dtype=torch.float64)
    return tuple((counts.double() @ levels**power).view(-1, 1, 1) for power in (1, 2))


def _sums_by_feature(images: Stored, first: int, last: int) -> Tensor:
    """Sums (2, C, H, W) of grey levels and of their squares, which are whole numbers that float64 adds exactly."""
    sums = torch.zeros(2, *images.shape[1:], dtype=torch.float64)
    for chunk in _chunks(images, first, last):
        values = chunk.float()
        sums[0] += values.sum(0)
        sums[1] += values.square_().sum(0)
    return sums


def _chunks(images: Stored, first: int, last: int) -> Iterator[Tensor]:
    for start in range(first, last, EXACT_ROWS):
        yield as_tensor(images[start : min(start + EXACT_ROWS, last)])
