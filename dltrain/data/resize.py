"""Antialiased bilinear resizing of a batch as two matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_matrix(size: int, new_size: int) -> Tensor:
    """The matrix W (new_size, size) with which W X W^T resizes a square image X.

    Its entries are what torch's antialiased bilinear interpolation makes of unit vectors; torchvision's
    Resize is the same function.
    """
    unit_vectors = torch.eye(size, dtype=torch.float64)[None, None]
    rows = F.interpolate(unit_vectors, size=(new_size, size), mode="bilinear", antialias=True)
    return rows[0, 0].float()


def resize(images: Tensor, matrix: Tensor, across: Tensor | None = None) -> Tensor:
    """Resize float images (N, C, height, width) with a `resize_matrix` of their height, and `across` of their width.

    Four times as fast on a CPU as F.interpolate from 28 to 96 pixels, and equal to 1e-3 grey levels.
    """
    # Under autocast the products would be bf16, which is off by a grey level, and TF32 by a tenth of one.
    with torch.autocast(images.device.type, enabled=False), _all_of_float32():
        return matrix @ (images @ (matrix if across is None else across).T)


@contextmanager
def _all_of_float32() -> Iterator[None]:
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before
