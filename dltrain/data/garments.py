"""Garments drawn as polygons, thousands at a time.

A garment is a list of parts, a part a brightness and a polygon in a square from -1 to 1, x to the right and
y downwards. Parts are painted one over the other. Each image moves, scales, shears and dents the polygons in
its own way and adds texture, light and noise, so that the kinds overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIZE = 28
# Images painted together: few enough to stay in the processor's cache.
CHUNK = 128
# Uniform numbers an image: its kind (0), where and how large (1 to 5), its light (6 to 11), its facing (12).
DRAWS = 13
# Deviation of each corner, of a side of 2; deviation of each pixel, in grey levels.
DENT = 0.035
NOISE = 14.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Part:
    """A polygon, corners in order, of a brightness relative to the garment's; 0 makes a hole."""

    points: Points
    brightness: float = 1.0


def mirrored(*half: tuple[float, float], brightness: float = 1.0) -> Part:
    """A part from its right half, listed downwards."""
    return Part([*half, *((-x, y) for x, y in reversed(half))], brightness)


def body(*, length: float, width: float = 0.42, hem: float = 0.42) -> Part:
    return mirrored((0.18, -0.85), (0.45, -0.75), (width, -0.2), (hem, length))


def sleeves(*, wrist_x: float, wrist_y: float, width: float) -> list[Part]:
    right = [(0.4, -0.78), (wrist_x, wrist_y - width / 2), (wrist_x - width, wrist_y + width / 2), (0.38, -0.4)]
    return [Part(right), Part([(-x, y) for x, y in right])]


NECK = mirrored((0.18, -0.9), (0.08, -0.72), brightness=0.0)

GARMENTS: dict[str, list[Part]] = {
    "t-shirt": [*sleeves(wrist_x=0.82, wrist_y=-0.4, width=0.24), body(length=0.8), NECK],
    "trouser": [
        mirrored((0.36, -0.9), (0.4, -0.3), (0.36, 0.9), (0.1, 0.9), (0.03, -0.35)),
        mirrored((0.36, -0.92), (0.36, -0.78), brightness=0.8),
    ],
    "pullover": [*sleeves(wrist_x=0.78, wrist_y=0.6, width=0.24), body(length=0.75), NECK],
    "dress": [mirrored((0.2, -0.92), (0.3, -0.6), (0.2, -0.15), (0.42, 0.92)), NECK],
    "coat": [
        *sleeves(wrist_x=0.74, wrist_y=0.65, width=0.22),
        body(length=0.92, hem=0.48),
        mirrored((0.12, -0.88), (0.03, -0.3), (0.03, 0.92), brightness=0.45),
    ],
    "sandal": [
        Part([(-0.9, 0.45), (0.3, 0.35), (0.85, 0.05), (0.9, 0.25), (0.85, 0.6), (0.6, 0.4), (-0.9, 0.62)]),
        Part([(-0.7, 0.45), (-0.25, -0.15), (-0.1, -0.1), (-0.45, 0.45)], 0.9),
        Part([(0.2, 0.4), (-0.2, -0.1), (-0.05, -0.2), (0.45, 0.3)], 0.8),
        Part([(0.7, 0.2), (0.35, -0.3), (0.45, -0.35), (0.85, 0.1)], 0.9),
    ],
    "shirt": [
        *sleeves(wrist_x=0.76, wrist_y=0.35, width=0.24),
        body(length=0.82),
        mirrored((0.22, -0.92), (0.16, -0.6), (0.0, -0.7), brightness=0.75),
        mirrored((0.025, -0.6), (0.025, 0.8), brightness=0.75),
    ],
    "sneaker": [
        Part([(-0.92, 0.35), (-0.6, 0.15), (0.0, -0.15), (0.25, -0.3), (0.5, -0.1), (0.88, -0.25), (0.92, 0.4)]),
        Part([(-0.95, 0.35), (0.95, 0.35), (0.92, 0.55), (-0.92, 0.55)], 0.6),
    ],
    "bag": [
        mirrored((0.35, -0.85), (0.45, -0.2), (0.3, -0.2), (0.22, -0.7)),
        mirrored((0.75, -0.25), (0.85, 0.75)),
        mirrored((0.78, -0.05), (0.79, 0.05), brightness=0.7),
    ],
    "ankle boot": [
        Part([(-0.9, 0.3), (-0.2, -0.1), (0.1, -0.85), (0.75, -0.85), (0.8, 0.5), (-0.9, 0.5)]),
        Part([(-0.9, 0.5), (0.8, 0.5), (0.82, 0.75), (0.45, 0.75), (0.4, 0.6), (-0.9, 0.62)], 0.6),
    ],
}  # fmt: skip
CORNERS = max(sum(len(part.points) for part in parts) for parts in GARMENTS.values())


def draw(count: int, *, seed: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (count, 1, 28, 28) and labels int64 (count,), of which each depends on seed and index alone."""
    draws_seed, dents_seed, noise_seed = np.random.SeedSequence(seed).spawn(3)
    draws = np.random.default_rng(draws_seed).random((count, DRAWS), np.float32)
    labels = (draws[:, 0] * len(GARMENTS)).astype(np.int64)
    dents = np.random.default_rng(dents_seed).standard_normal((count, CORNERS, 2), np.float32) * DENT
    images = np.empty((count, SIZE, SIZE), np.float32)
    for label, parts in enumerate(GARMENTS.values()):
        chosen = np.flatnonzero(labels == label)
        for some in np.split(chosen, range(CHUNK, len(chosen), CHUNK)):
            images[some] = _paint(parts, draws[some], dents[some])
    noise = np.random.default_rng(noise_seed).standard_normal(images.shape, np.float32)
    noise *= images > 1
    noise *= NOISE
    images += noise
    return np.clip(images, 0, 255, out=images).astype(np.uint8)[:, None], labels


def _paint(parts: Sequence[Part], draws: np.ndarray, dents: np.ndarray) -> np.ndarray:
    """Grey levels (N, 28, 28) of one kind of garment."""
    image = np.zeros((len(draws), SIZE, SIZE), np.float32)
    first = 0
    for part in parts:
        last = first + len(part.points)
        points = np.asarray(part.points, np.float32) + dents[:, first:last]
        covered = coverage(_place(points, draws))
        image += covered * (part.brightness - image)
        first = last
    image *= _light(draws)
    return image


def _place(points: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Corners (N, K, 2) in pixels, after each image's own mirroring, scale, shear and shift."""
    width, height, shear, right, down = (spread[:, None] for spread in (draws[:, 1:6] * 2 - 1).T)
    facing = np.where(draws[:, 12:13] < 0.5, -1, 1)
    x = points[..., 0] * facing * (0.9 + 0.2 * width) + 0.2 * shear * points[..., 1] + 0.18 * right
    y = points[..., 1] * (0.85 + 0.15 * height) + 0.14 * down
    return np.stack([x + 1, y + 1], -1) * (SIZE / 2)


def _light(draws: np.ndarray) -> np.ndarray:
    """Grey levels (N, 28, 28): each image's own brightness, gradient and stripes."""
    brightness, slope, contrast, frequency, phase, direction = (u[:, None, None] for u in draws[:, 6:12].T)
    across = np.linspace(-1, 1, SIZE, dtype=np.float32)[None, None, :]
    down = across.transpose(0, 2, 1)
    along = np.cos(np.pi * direction) * across + np.sin(np.pi * direction) * down
    stripes = np.sin((4 + 16 * frequency) * along + 2 * np.pi * phase)
    light: np.ndarray = 1 + 0.5 * contrast**2 * (stripes - 1)
    light *= (70 + 185 * brightness) * (1 + 0.3 * (slope * 2 - 1) * down)
    return light


def coverage(points: np.ndarray) -> np.ndarray:
    """The share of each pixel that lies in a polygon, (N, 28, 28), from corners (N, K, 2) in pixels.

    Exact along a row's middle line: an edge that crosses it covers what is right of the crossing, and the
    edge's direction gives the sign.
    """
    middles = np.arange(SIZE, dtype=np.float32) + 0.5
    (x0, y0), (x1, y1) = points.T[..., None], np.roll(points, -1, 1).T[..., None]
    sign = (y0 <= middles).astype(np.float32) - (y1 <= middles)
    rise = np.where(sign == 0, 1, y1 - y0)
    crossing = np.clip(x0 + (x1 - x0) * (middles - y0) / rise, 0, SIZE)
    cell = crossing.astype(np.int64)
    share = sign * (crossing - cell)
    rows = np.arange(len(points) * SIZE).reshape(len(points), SIZE) * (SIZE + 2)
    index = (rows + cell).ravel()
    # Each crossing raises all pixels right of it by its sign, so a running sum along the row fills it.
    steps = np.bincount(index, (sign - share).ravel(), minlength=rows.size * (SIZE + 2))
    steps += np.bincount(index + 1, share.ravel(), minlength=steps.size)
    grid = steps.reshape(len(points), SIZE, SIZE + 2)[..., :SIZE].astype(np.float32)
    covered: np.ndarray = np.abs(grid.cumsum(-1))
    return covered.clip(0, 1)
