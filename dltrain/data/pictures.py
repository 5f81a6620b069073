"""Picture files made into arrays of one shape."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import DataError, Progress
from .stored import Rows

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MOST_PIXELS = 100_000_000  # above which a small file that asks for so much memory is taken for an attack
PART = 256  # pictures in memory at a time
FITS = ("squash", "crop")


@dataclass(frozen=True)
class Shape:
    """What a picture becomes: channels (1 grey, 3 colour), side in pixels, and how its own sides are brought there."""

    channels: int
    side: int
    fit: str

    @property
    def array(self) -> tuple[int, int, int]:
        return self.channels, self.side, self.side


class UnreadableError(Exception):
    """A file that is no sound picture; says why."""


class Pictures:
    """Pictures uint8 (N, C, side, side) that are decoded when a slice or an array of indices asks for them."""

    def __init__(self, paths: Sequence[Path], shape: Shape) -> None:
        self.paths, self.picture_shape = list(paths), shape

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.paths), *self.picture_shape.array

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
        chosen = self.paths[places] if isinstance(places, slice) else [self.paths[place] for place in places]
        found = np.empty((len(chosen), *self.picture_shape.array), np.uint8)
        for place, path in enumerate(chosen):
            try:
                found[place] = decode(path, self.picture_shape)
            except UnreadableError as error:
                raise DataError(f"{path}: {error}") from error
        return found


def decode_all(
    paths: Sequence[Path],
    shape: Shape,
    failures: dict[Path, str],
    progress: Progress | None = None,
    *,
    threads: int | None = None,
) -> Iterator[np.ndarray]:
    """The pictures of files, decoded by threads (None: a processor each), in parts (n, C, side, side).

    Those that cannot be decoded are black, and `failures` is told why, in their order.
    """

    def attempt(path: Path) -> np.ndarray | str:
        try:
            return decode(path, shape)
        except UnreadableError as error:
            return str(error)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for first in range(0, len(paths), PART):
            part = paths[first : first + PART]
            decoded = [*pool.map(attempt, part)]
            failures |= {path: why for path, why in zip(part, decoded, strict=True) if isinstance(why, str)}
            black = np.zeros(shape.array, np.uint8)
            yield np.ascontiguousarray([black if isinstance(image, str) else image for image in decoded])
            if progress is not None:
                progress(first + len(part), len(paths))


def elongation(path: Path) -> float:
    """How many times longer than wide a readable picture is, or wider than long."""
    from PIL import Image

    with Image.open(path) as picture:
        return max(picture.size) / min(picture.size)


def in_parts(images: np.ndarray | Rows) -> Iterator[np.ndarray]:
    """Pictures one after another, in contiguous parts (n, C, side, side). Raises DataError where one is unreadable."""
    if not isinstance(images, Pictures):
        for first in range(0, len(images), PART):
            yield np.ascontiguousarray(images[first : first + PART])
        return
    failures: dict[Path, str] = {}
    for part in decode_all(images.paths, images.picture_shape, failures):
        for path, why in failures.items():
            raise DataError(f"{path}: {why}")
        yield part


def decode(path: Path, shape: Shape) -> np.ndarray:
    """The picture of a file, upright, uint8 (C, side, side). Raises UnreadableError."""
    from PIL import Image, ImageOps  # in the first run that reads pictures

    Image.MAX_IMAGE_PIXELS = None  # ours is checked below, and is an error of one line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which does not matter here
            with Image.open(path) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    raise UnreadableError(f"{picture.width}x{picture.height} pixels are too many")
                picture.draft("RGB" if shape.channels == 3 else "L", (2 * shape.side, 2 * shape.side))
                upright = ImageOps.exif_transpose(picture)
                sized = _in_colour(upright, shape.channels).resize(
                    (shape.side, shape.side), Image.Resampling.BILINEAR, box=_box(upright.size, shape.fit)
                )
    except UnreadableError:
        raise
    except Exception as error:  # Pillow's readers raise a dozen kinds, from SyntaxError to struct.error
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error
    pixels = np.asarray(sized)
    return pixels[None] if shape.channels == 1 else pixels.transpose(2, 0, 1)


def as_png(image: np.ndarray, *, most: int = 96) -> str:
    """An image uint8 (C, H, W), no side above `most` pixels, as a data URL that a page can show."""
    return f"data:image/png;base64,{base64.b64encode(png(image, most=most)).decode()}"


def png(image: np.ndarray, *, most: int | None = None) -> bytes:
    """The file of an image uint8 (C, H, W), made smaller where a side is above `most` pixels."""
    from PIL import Image

    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
    if most is not None:
        picture.thumbnail((most, most))
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def _in_colour(picture: Any, channels: int) -> Any:
    """Grey or RGB; what is transparent is white, and 16 bits become 8."""
    from PIL import Image

    mode = "RGB" if channels == 3 else "L"
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert(mode)


def _box(size: tuple[int, int], fit: str) -> tuple[float, float, float, float]:
    """The part of a picture that is kept: all of it, or the largest square in the middle."""
    width, height = size
    if fit == "squash":
        return 0, 0, width, height
    side = min(size)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
