"""The first layer's filters, as one small picture."""

import base64
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dltrain.run.first_layer import first_layer

MOST_FILTERS, MOST_PIXELS, SIDE, WIDEST = 64, 120_000, 56, 672
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def filters(folder: Path) -> dict[str, Any] | None:
    """What a page says and shows of a run's first layer; None where there is nothing to see. Raises RunError."""
    found = first_layer(folder)
    if found is None:
        return None
    name, step, weights = found
    count, channels, height, width = weights.shape
    shown = max(1, min(count, MOST_FILTERS, MOST_PIXELS // (height * width)))
    if channels != 3:
        weights = weights.mean(1, keepdims=True)
    largest = float(np.abs(weights[:shown]).max())
    if not math.isfinite(largest):
        raise ValueError(f"{name} is not finite")
    picture = _sheet(weights[:shown] / (largest or 1.0))
    return {
        "name": name,
        "step": step,
        "count": count,
        "shown": shown,
        "size": f"{height}x{width}",
        "channels": channels,
        "largest": largest,
        "image": f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}",
        **_shown_size(picture, height),
    }


def png(pixels: Pixels) -> bytes:
    """Pixels uint8 (H, W, 4), red to opacity, as a PNG (W3C, Portable Network Graphics, 2003)."""
    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _sheet(weights: np.ndarray) -> Pixels:
    """Weights -1..1 (units, 1 or 3, h, w) side by side, zero being grey, with nothing between them."""
    count, _, height, width = weights.shape
    columns = min(count, max(1, WIDEST // max(SIDE, width + 1)))
    rows = -(-count // columns)
    sheet = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for place, unit in enumerate(weights):
        y, x = (place // columns) * (height + 1), (place % columns) * (width + 1)
        sheet[y : y + height, x : x + width, :3] = np.round(127.5 * (1 + unit)).transpose(1, 2, 0)
        sheet[y : y + height, x : x + width, 3] = 255
    return sheet


def _shown_size(picture: Pixels, height: int) -> dict[str, int]:
    """In which size a page shows the sheet: whole pixels, small filters enlarged."""
    zoom = max(1, min(SIDE // height, WIDEST // picture.shape[1]))
    return {"width": zoom * picture.shape[1], "height": zoom * picture.shape[0]}
