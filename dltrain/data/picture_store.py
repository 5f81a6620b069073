"""Decoded pictures in a file that appears when it is whole, which the ranks of a machine make together."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from .dataset import DataError, Progress
from .files import replacing
from .pictures import Shape, decode_all
from .sharing import Alone, Team

ROUND = 8  # parts that a rank decodes before it hears of the others, so that none waits long enough to be given up


@dataclass
class PictureStore:
    """The pictures of `paths` below `root`, decoded in `entry`.npy; `entry`.json tells why some could not be.

    All ranks must come to `make`.
    """

    entry: Path
    root: Path
    paths: Sequence[Path]
    shape: Shape
    team: Team = field(default_factory=Alone)
    progress: Progress | None = None

    @property
    def images(self) -> np.ndarray:
        """Those of all paths in their order, black where one could not be decoded; read from the disk when needed."""
        images: np.ndarray = np.load(self.entry.with_suffix(".npy"), mmap_mode="r")
        return images

    @property
    def failures(self) -> dict[Path, str]:
        """Why some pictures could not be decoded."""
        notes: dict[str, str] = json.loads(self.entry.with_suffix(".json").read_text())
        return {self.root / path: why for path, why in notes.items()}

    def make(self) -> None:
        """Decode what is not there yet, each rank of a machine its part. Raises DataError (74) where it has no room."""
        own = self.team.neighbours
        drafts = self.team.each(self._begin)
        draft = drafts[own.start]
        if not any(drafts):
            return
        bad: dict[Path, str] = {}
        try:
            parts = self._parts(draft, bad) if draft else iter(())
            while any(self.team.each(lambda: self._go_on(parts))):
                pass
            bads = self.team.each(lambda: bad)
            self.team.each(lambda: self._publish(draft, bads[own.start : own.stop]))
        except BaseException:
            if draft:
                draft.unlink(missing_ok=True)
            raise

    def _begin(self) -> Path | None:
        """The first rank of a machine finds out whether pictures are to be decoded, and makes room for them."""
        target = self.entry.with_suffix(".npy")
        if self.team.rank != self.team.neighbours.start or self.entry.with_suffix(".json").is_file():
            return None
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            os.close(descriptor)
        return Path(name)

    def _parts(self, draft: Path, bad: dict[Path, str]) -> Iterator[bool]:
        """Decode this rank's pictures into their place, part by part."""
        own = self.team.neighbours
        first, last = (len(self.paths) * (self.team.rank - own.start + end) // len(own) for end in (0, 1))
        threads = max(1, (os.cpu_count() or 1) // len(own))
        with self._writing(), draft.open("r+b") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(self.paths), *self.shape.array)}
            np.lib.format.write_array_header_1_0(file, header)  # the same by all
            file.seek(first * math.prod(self.shape.array), os.SEEK_CUR)
            for part in decode_all(self.paths[first:last], self.shape, bad, self.progress, threads=threads):
                file.write(part.data)
                yield True
            file.flush()
            os.fsync(file.fileno())

    def _go_on(self, parts: Iterator[bool]) -> bool:
        """Decode some parts; returns whether there were any."""
        return any([*islice(parts, ROUND)])

    def _publish(self, draft: Path | None, bads: Sequence[dict[Path, str]]) -> None:
        """The first rank of a machine gives the file its name, and tells what is missing from it."""
        if draft is None or self.team.rank != self.team.neighbours.start:
            return
        with self._writing():
            draft.replace(self.entry.with_suffix(".npy"))
            self.entry.with_suffix(".sha256").unlink(missing_ok=True)
            with replacing(self.entry.with_suffix(".json")) as file:
                notes = {str(path.relative_to(self.root)): why for bad in bads for path, why in bad.items()}
                file.write(json.dumps(notes).encode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = f"{self.entry.parent}: {error.strerror}; data.cache=false decodes without keeping"
            raise DataError(why, exit_code=74) from error
