"""One file in IDX, the format of MNIST, plain or gzipped, read strictly.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits": two zero bytes, the type
(8 is uint8), the number of dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import stat
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from .dataset import DataError

UINT8 = 8
MAX_BYTES = 1 << 32
CHUNK = 1 << 22

Shape = tuple[int, ...]
held: dict[tuple[str, int, int, int], tuple[np.ndarray, str]] | None = None


def read_shape(path: Path, *, dimensions: int) -> Shape:
    """The shape that the header declares; of a plain file, the size is compared with it too."""
    with _open(path) as file:
        shape = _read_header(file, path, dimensions)
    if path.suffix != ".gz":
        _check_size(path, actual=path.stat().st_size, declared=decoded_size(shape))
    return shape


def read_decoded(path: Path, *, dimensions: int) -> np.ndarray:
    """Header and values as one uint8 array: exactly the bytes that the header declares."""
    shape = read_shape(path, dimensions=dimensions)
    decoded = np.empty(decoded_size(shape), np.uint8)
    view = decoded.data
    with _open(path) as file:
        try:
            done = 0
            while count := file.readinto(view[done : done + CHUNK]):  # type: ignore[attr-defined]
                done += count
            # Reading on to the end is also what makes gzip compare its checksum.
            extra = len(file.read(1))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise damaged(path, f"broken gzip stream ({error})") from error
    _check_size(path, actual=done + extra, declared=decoded.size)
    if tuple(parse(decoded).shape) != shape:
        raise damaged(path, "it changed while it was read")
    return decoded


def read_checked(path: Path, *, dimensions: int) -> tuple[np.ndarray, str]:
    """As `read_decoded`, with the SHA-256 (hex) of the bytes; where files are held, each is read once."""
    key = None
    if held is not None:
        state = path.stat()
        key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns)
        if key in held:
            return held[key]
    decoded = read_decoded(path, dimensions=dimensions)
    result = decoded, hashlib.sha256(decoded.data).hexdigest()
    if held is not None and key is not None:
        held[key] = result
    return result


def hold() -> None:
    """Keep what is read from now on: processes forked from this one have it without reading it again."""
    global held
    held = {}


def parse(decoded: np.ndarray) -> np.ndarray:
    """The values of a decoded file, as a view of the shape that its header declares."""
    dimensions = int(decoded[3])
    start = 4 + 4 * dimensions
    return decoded[start:].reshape(struct.unpack(f">{dimensions}I", decoded[4:start].tobytes()))


def encode(values: np.ndarray) -> bytes:
    """The IDX file, not gzipped, of a uint8 array."""
    assert values.dtype == np.uint8
    return struct.pack(f">4B{values.ndim}I", 0, 0, UINT8, values.ndim, *values.shape) + values.tobytes()


def decoded_size(shape: Shape) -> int:
    """Bytes of header and values."""
    return 4 + 4 * len(shape) + math.prod(shape)


def damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; get this file again, or name another folder with data.root=")


def _open(path: Path) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        # Opening a FIFO would wait for ever.
        if not stat.S_ISREG(mode):
            raise damaged(path, "not a regular file")
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb", buffering=0)  # type: ignore[return-value]
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})") from error


def _read_header(file: IO[bytes], path: Path, dimensions: int) -> Shape:
    length = 4 + 4 * dimensions
    try:
        header = file.read(length)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, f"broken gzip stream ({error})") from error
    if not header:
        raise damaged(path, "empty")
    magic = bytes((0, 0, UINT8, dimensions))
    if header[:4] != magic:
        raise damaged(path, f"starts with {header[:4].hex()}, not with {magic.hex()} (IDX, uint8)")
    if len(header) < length:
        raise damaged(path, "truncated within its header")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if 0 in shape:
        raise damaged(path, f"declares no values (shape {shape})")
    if decoded_size(shape) > MAX_BYTES:
        raise damaged(path, f"declares {decoded_size(shape):,} bytes, {MAX_BYTES:,} are allowed")
    return shape


def _check_size(path: Path, *, actual: int, declared: int) -> None:
    if actual < declared:
        raise damaged(path, f"truncated: {actual:,} of {declared:,} bytes")
    if actual > declared:
        raise damaged(path, f"goes on past the {declared:,} bytes that its header declares")
