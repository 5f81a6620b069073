"""Augmentation of whole batches on their device, with draws of each image's own.

Each factory returns a function (images, labels, generator) -> (images, labels) of float images
(N, C, H, W) in grey levels of 0 to 255 at their native size. All chance comes from the generator, and
nothing waits for the device. torchvision.transforms.v2 draws once a batch, from the global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

__all__ = ["crop_flip", "crop_flip_cutmix", "crop_flip_erase", "cutmix", "flip", "mixup", "none"]

Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]

BETA_DRAWS = 1 << 16


def none() -> None:
    """Images as they are."""


def flip(*, flip_probability: float = 0.5) -> Augment:
    """Mirror images left to right."""
    _check_probability("flip_probability", flip_probability)

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        flipped = _uniform(images, generator) < flip_probability
        return torch.where(_per_image(flipped), images.flip(-1), images), labels

    return augment


def crop_flip(*, padding: int = 4, flip_probability: float = 0.5) -> Augment:
    """Pad by `padding` native pixels of 0, crop at a random place, mirror (He et al. 2016, section 4.2)."""
    _check_probability("flip_probability", flip_probability)
    if padding < 0:
        raise ValueError(f"augment.padding={padding}: name 0 or more pixels")

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        rows = _offsets(images, generator, padding) + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(len(images), width)
        flipped = _uniform(images, generator)[:, None] < flip_probability
        columns = torch.where(flipped, columns.flip(1), columns) + _offsets(images, generator, padding)
        padded = F.pad(images, (padding,) * 4)
        image = torch.arange(len(images), device=images.device)[:, None, None]
        cropped = padded.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]]
        return cropped.movedim(-1, 1), labels

    return augment


def crop_flip_erase(
    *,
    padding: int = 4,
    flip_probability: float = 0.5,
    erase_probability: float = 0.5,
    erase_area: Sequence[float] = (0.02, 0.33),
    erase_aspect: Sequence[float] = (0.3, 3.3),
) -> Augment:
    """`crop_flip`, then a rectangle set to 0 (Zhong et al. 2020).

    The rectangle's area is a share of the image's, its aspect height over width (log-uniform); it is cut
    where it would leave the image.
    """
    _check_probability("erase_probability", erase_probability)
    _check_range("erase_area", erase_area, upper=1.0)
    _check_range("erase_aspect", erase_aspect, upper=float("inf"))
    crop = crop_flip(padding=padding, flip_probability=flip_probability)

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        images, labels = crop(images, labels, generator)
        area = _between(erase_area, _uniform(images, generator))
        log_aspect = _between([float(np.log(side)) for side in erase_aspect], _uniform(images, generator))
        aspect = log_aspect.exp()
        inside = _rectangles(images, (area * aspect).sqrt(), (area / aspect).sqrt(), generator)
        erased = inside & _per_image(_uniform(images, generator) < erase_probability)
        return images.masked_fill(erased, 0.0), labels

    return augment


def mixup(*, num_classes: int, alpha: float = 0.2) -> Augment:
    """Weighted means of images and of their labels, weights from Beta(alpha, alpha) (Zhang et al. 2018).

    The partner is the neighbour in the batch, which is as random as the batch. Labels become
    probabilities (N, num_classes).
    """
    draw_weights = _beta(alpha)

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        weights = draw_weights(images, generator)
        mixed = torch.lerp(images.roll(1, 0), images, _per_image(weights))
        return mixed, _mixed_labels(labels, weights, num_classes)

    return augment


def cutmix(*, num_classes: int, alpha: float = 1.0, mix_probability: float = 1.0) -> Augment:
    """A rectangle of the neighbour's image, and labels weighted by area (Yun et al. 2019).

    The rectangle's share of the area is drawn from Beta(alpha, alpha) before it is cut at the image's edge.
    Labels become probabilities (N, num_classes).
    """
    _check_probability("mix_probability", mix_probability)
    draw_weights = _beta(alpha)

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        side = (1.0 - draw_weights(images, generator)).sqrt()
        if mix_probability < 1:
            side = side * (_uniform(images, generator) < mix_probability)
        inside = _rectangles(images, side, side, generator)
        weights = 1.0 - inside.float().mean((1, 2, 3))
        mixed = torch.where(inside, images.roll(1, 0), images)
        return mixed, _mixed_labels(labels, weights, num_classes)

    return augment


def crop_flip_cutmix(
    *,
    num_classes: int,
    padding: int = 4,
    flip_probability: float = 0.5,
    alpha: float = 1.0,
    mix_probability: float = 0.5,
) -> Augment:
    """`crop_flip`, then `cutmix` of some images (Yun et al. 2019, who mix every other batch of CIFAR)."""
    crop = crop_flip(padding=padding, flip_probability=flip_probability)
    mix = cutmix(num_classes=num_classes, alpha=alpha, mix_probability=mix_probability)

    def augment(images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        return mix(*crop(images, labels, generator), generator)

    return augment


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    return torch.rand(len(images), generator=generator, device=images.device)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _between(bounds: Sequence[float], uniform: Tensor) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * uniform


def _offsets(images: Tensor, generator: Generator, padding: int) -> Tensor:
    """Where each image's crop begins in its padded image, (N, 1)."""
    return torch.randint(2 * padding + 1, (len(images), 1), generator=generator, device=images.device)


def _rectangles(images: Tensor, height: Tensor, width: Tensor, generator: Generator) -> Tensor:
    """Masks (N, 1, H, W) of rectangles around random centres; height and width (N,) are shares of the side."""
    rows = _intervals(images, height, images.shape[-2], generator)
    columns = _intervals(images, width, images.shape[-1], generator)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _intervals(images: Tensor, length: Tensor, size: int, generator: Generator) -> Tensor:
    centres = torch.arange(size, device=images.device) + 0.5
    middle = _uniform(images, generator) * size
    return (centres - middle[:, None]).abs() < (length * size / 2)[:, None]


def _beta(alpha: float) -> Callable[[Tensor, Generator], Tensor]:
    """A function that draws (N,) from Beta(alpha, alpha): torch's own takes no generator, so from a table."""
    if not alpha > 0:
        raise ValueError(f"augment.alpha={alpha}: name a number above 0")
    table = torch.from_numpy(np.random.default_rng(0).beta(alpha, alpha, BETA_DRAWS)).float()
    table_on = cache(table.to)

    def draw(images: Tensor, generator: Generator) -> Tensor:
        chosen = torch.randint(BETA_DRAWS, (len(images),), generator=generator, device=images.device)
        return table_on(images.device)[chosen]

    return draw


def _mixed_labels(labels: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    own = (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
    return torch.lerp(own.roll(1, 0), own, weights[:, None])


def _check_probability(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"augment.{key}={value}: name a probability from 0 to 1")


def _check_range(key: str, bounds: Sequence[float], *, upper: float) -> None:
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= upper:
        raise ValueError(f"augment.{key}={list(bounds)}: name a lower and an upper bound above 0, at most {upper}")
