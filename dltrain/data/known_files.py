"""Files known by their digest: found or fetched, and checked whichever way they came."""

from __future__ import annotations

import atexit
import fcntl
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import idx_file
from .dataset import DataError, Progress
from .files import replacing
from .idx import dimensions, find_in

log = logging.getLogger("dltrain")

ATTEMPTS = 3


@dataclass(frozen=True)
class KnownFile:
    """An IDX file by its name without ".gz": decoded size, usual size gzipped, SHA-256 of the decoded bytes."""

    name: str
    size: int
    gzip_size: int
    sha256: str


class KnownFiles:
    """A Source of known files, looked for in the cache, then in `folders`, then on the mirrors.

    The cache keeps the decoded form. Mirrors are URLs that end in "/", `timeout` is in seconds, and `remedy`
    ends each error's line.
    """

    def __init__(
        self,
        files: Sequence[KnownFile],
        *,
        remedy: str,
        cache: Path | None = None,
        folders: Sequence[Path] = (),
        mirrors: Sequence[str] = (),
        timeout: float = 20.0,
    ) -> None:
        assert cache or not mirrors, "what is downloaded must be kept somewhere"
        self.files = {file.name: file for file in files}
        self.remedy = remedy
        self.cache = cache
        self.folders = tuple(folders)
        self.mirrors = tuple(mirrors)
        self.timeout = timeout
        self._rejected: set[Path] = set()

    def find(self, name: str) -> Path:
        if (path := self._look_for(name)) is None:
            raise DataError(f"{self._places()}: {name}.gz is missing; {self.remedy}")
        return path

    def read(self, name: str) -> tuple[np.ndarray, str]:
        path = self.find(name)
        try:
            decoded = self._read_checked(path, name)
        except DataError as error:
            if path != self._kept(name):
                raise
            self._reject(path, error)
            self.fetch()
            return self.read(name)
        if self.cache is not None and path != self._kept(name):
            self._try_to_keep(name, decoded)
        return decoded, self.files[name].sha256

    def fetch(self, progress: Progress | None = None) -> None:
        """Download what is found nowhere into the cache; a second process waits and finds it there.

        Raises DataError: 66 without a mirror to ask, 69 where none sends the right bytes.
        """
        if not (missing := self._missing()):
            return
        if not self.mirrors:
            self.find(missing[0].name)
        with self._locked_cache():
            missing = self._missing()
            total = sum(file.gzip_size for file in missing)
            before = 0
            for file in missing:
                self._download(file, progress and _shifted(progress, before=before, total=total))
                before += file.gzip_size

    def _download(self, file: KnownFile, progress: Callable[[int], None] | None) -> None:
        # A machine that finds its data starts without the modules of the network.
        from .download import FAILURES, download

        assert self.cache is not None
        arriving = self.cache / f"{file.name}.part.gz"
        for mirror, _ in itertools.product(self.mirrors, range(ATTEMPTS)):
            url = f"{mirror}{file.name}.gz"
            try:
                download(url, arriving, limit=file.size, timeout=self.timeout, progress=progress)
                self._keep(file.name, self._read_checked(arriving, file.name))
                return arriving.unlink()
            except DataError as error:
                failure: Exception = error
                arriving.unlink()
            except FAILURES as error:
                failure = error
            log.info("%s: %s", url, failure)
        raise DataError(
            f"{file.name}.gz is not in {self._places()}, and {url} failed ({failure}); {self.remedy}",
            exit_code=69,
        )

    def _missing(self) -> list[KnownFile]:
        return [file for file in self.files.values() if self._look_for(file.name) is None]

    def _look_for(self, name: str) -> Path | None:
        kept = self._kept(name)
        if kept is not None and kept not in self._rejected and kept.is_file():
            try:
                idx_file.read_shape(kept, dimensions=dimensions(name))
                return kept
            except DataError as error:
                self._reject(kept, error)
        found = (find_in(folder, name) for folder in self.folders)
        return next((path for path in found if path is not None), None)

    def _reject(self, kept: Path, why: DataError) -> None:
        log.warning("cache damaged, made again: %s", why)
        self._rejected.add(kept)

    def _read_checked(self, path: Path, name: str) -> np.ndarray:
        decoded, digest = idx_file.read_checked(path, dimensions=dimensions(name))
        if digest != self.files[name].sha256:
            raise DataError(f"{path}: its decoded SHA-256 is not that of {name}; {self.remedy}")
        return decoded

    def _kept(self, name: str) -> Path | None:
        return self.cache / name if self.cache is not None else None

    def _keep(self, name: str, decoded: np.ndarray) -> None:
        path = self._kept(name)
        assert path is not None
        with replacing(path) as file:
            file.write(decoded.data)
        self._rejected.discard(path)

    def _try_to_keep(self, name: str, decoded: np.ndarray) -> None:
        try:
            self._keep(name, decoded)
        except OSError as error:
            log.info("%s: not kept in the cache (%s), so it is decoded at each start", name, error)

    @contextmanager
    def _locked_cache(self) -> Iterator[None]:
        try:
            lock = self._open_lock()
        except OSError as error:
            log.warning("the cache cannot be written (%s): downloading for this run alone", error)
            self.cache = Path(tempfile.mkdtemp(prefix="dltrain-"))
            atexit.register(shutil.rmtree, self.cache, ignore_errors=True)
            lock = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _open_lock(self) -> int:
        assert self.cache is not None
        self.cache.mkdir(parents=True, exist_ok=True)
        return os.open(self.cache / ".lock", os.O_CREAT | os.O_WRONLY, 0o666)

    def _places(self) -> str:
        places = (self.cache, *self.folders) if self.cache is not None else self.folders
        return " or ".join(map(str, places))


def _shifted(progress: Progress, *, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
