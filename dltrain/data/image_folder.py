"""A folder of pictures: JPEG, PNG or WebP, grey or colour, of any sizes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from .dataset import DataError, Dataset, Examples, Progress, cache_folder
from .facts import ImageFacts, natural_order
from .files import replacing
from .picture_store import PictureStore
from .pictures import FITS, SUFFIXES, Pictures, Shape, in_parts
from .sharing import Alone, Team
from .stored import Chosen

__all__ = ["image_folder"]

PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing", "evaluation"),
}
MOST_NAMED = 5
LINK = "a link, which may lead anywhere; put the pictures themselves there"


def image_folder(
    *,
    image_size: int,
    root: str | None = None,
    class_from: str = "folder",
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    fit: str = "squash",
    corrupt: str = "refuse",
    cache: bool = True,
) -> ImageFolder:
    """Pictures below `root`, in folders train, val and test, or in one part that `data.val_size` is drawn from.

    A class is the folder that a picture lies in or, with `class_from=prefix`, its file name up to the first "_"; the
    classes are sorted, numbers by size, and `class_names` calls them otherwise. Pictures become squares of
    `image_size` pixels, squashed or cropped. A picture that cannot be decoded is refused, or skipped. `cache` keeps
    what was decoded in the user's cache folder; without it pictures are decoded whenever they are needed.
    """
    if root is None:
        raise ValueError("data.root=null: data=image_folder needs the folder that holds the pictures")
    for key, value, choices in (
        ("class_from", class_from, ("folder", "prefix")),
        ("fit", fit, FITS),
        ("corrupt", corrupt, ("refuse", "skip")),
    ):
        if value not in choices:
            raise ValueError(f"data.{key}={value}: choose {' or '.join(choices)}")
    if channels not in (1, 3):
        raise ValueError(f"data.channels={channels}: 1 is grey, 3 is colour")
    listing = Listing(Path(root).expanduser(), by_prefix=class_from == "prefix")
    if corrupt == "skip" and not cache:
        raise ValueError("data.corrupt=skip: which pictures are sound is known from the cache; set data.cache=true")
    names = None if class_names is None else tuple(class_names)
    return ImageFolder(listing, Shape(channels, image_size, fit), names, skips=corrupt == "skip", cache=cache)


@dataclass
class Listing:
    """The picture files below a folder and their classes, without one being opened."""

    root: Path
    by_prefix: bool

    @cached_property
    def files(self) -> dict[str, list[tuple[Path, str]]]:
        """(path, class) by part, sorted by path."""
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; name the one that holds the pictures with data.root=")
        folders = {part: self._folder(names) for part, names in PART_NAMES.items()}
        for folder in folders.values():
            if folder is not None and folder.is_symlink():
                raise DataError(f"{folder}: {LINK}")
        if folders["train"] is None and (others := [folder for folder in folders.values() if folder]):
            raise DataError(f"{self.root}: there is {others[0].name}/ and no train/")
        places = {part: folder for part, folder in folders.items() if folder} or {"train": self.root}
        files = {part: sorted(self._below(folder)) for part, folder in places.items()}
        for part, found in files.items():
            if not found:
                raise DataError(f"{places[part]}: no pictures ({', '.join(SUFFIXES)}) in folders of classes")
        return files

    @cached_property
    def classes(self) -> list[str]:
        """Those of the training part."""
        classes = sorted({name for _, name in self.files["train"]}, key=natural_order)
        if len(classes) < 2:
            raise DataError(f"{self.root}: one class, {classes[0]}; there must be two or more")
        for part, files in self.files.items():
            for path, name in files:
                if name not in classes:
                    raise DataError(f"{path}: class {name} of {part} has no pictures to train on")
        return classes

    def _folder(self, names: Sequence[str]) -> Path | None:
        return next((self.root / name for name in names if (self.root / name).is_dir()), None)

    def _below(self, folder: Path) -> Iterator[tuple[Path, str]]:
        for parent, subfolders, names in os.walk(folder):
            for name in [*subfolders, *names]:
                if (path := Path(parent) / name).is_symlink():
                    raise DataError(f"{path}: {LINK}")
            for name in names:
                path = Path(parent) / name
                if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                    yield path, self._class(path, folder)

    def _class(self, path: Path, folder: Path) -> str:
        if self.by_prefix:
            name, underscore, _ = path.stem.partition("_")
            if not underscore:
                raise DataError(f"{path}: no class before a _ in its name, as data.class_from=prefix asks")
            return name
        if path.parent == folder:
            raise DataError(f"{path}: in no folder of a class; see data.class_from=prefix")
        return path.relative_to(folder).parts[0]


@dataclass
class ImageFolder(Dataset):
    """The pictures of a listing as a Dataset."""

    listing: Listing
    shape: Shape
    class_names: tuple[str, ...] | None
    skips: bool
    cache: bool
    progress: Progress | None = None
    team: Team = field(default_factory=Alone)

    def divide(self, team: Team) -> None:
        self.team = team

    def fetch(self, progress: Progress | None = None) -> None:
        """Decode into the cache, where there is one."""
        self.progress = progress
        if self.cache:
            _ = self._decoded

    def facts(self) -> ImageFacts:
        classes = self.listing.classes
        names = self.class_names or tuple(classes)
        if len(names) != len(classes):
            raise DataError(f"data.class_names: {len(names)} names for {len(classes)} classes: {', '.join(classes)}")
        return ImageFacts(
            in_channels=self.shape.channels,
            image_size=self.shape.side,
            class_names=names,
            left_out=self._left_out(),
            num_examples={part: len(files) for part, files in self._sound.items()},
        )

    def labels(self, part: str = "train") -> np.ndarray:
        places = {name: place for place, name in enumerate(self.listing.classes)}
        return np.array([places[name] for _, name in self._sound[part]], np.int64)

    def load(self) -> dict[str, Examples]:
        if not self.cache:
            paths = {part: [path for path, _ in files] for part, files in self._sound.items()}
            return {part: Examples(Pictures(each, self.shape), self.labels(part)) for part, each in paths.items()}
        images, bad = self._decoded
        examples, first = {}, 0
        for part, files in self.listing.files.items():
            kept = np.array([path not in bad for path, _ in files])
            own = images[first : first + len(files)]
            examples[part] = Examples(own if kept.all() else Chosen(own, np.flatnonzero(kept)), self.labels(part))
            first += len(files)
        return examples

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the decoded pictures in their order, with labels and classes; kept in the cache folder."""
        kept = self._entry.with_suffix(".sha256")
        if kept.is_file():
            return kept.read_text()
        sha256 = hashlib.sha256(repr(self.listing.classes).encode())
        for part, examples in self.load().items():
            sha256.update(repr((part, examples.inputs.shape, examples.targets.tolist())).encode())
            for images in in_parts(examples.inputs):
                sha256.update(images.data)
        with suppress(OSError), replacing(kept) as file:  # where nothing can be kept, it is computed each time
            file.write(sha256.hexdigest().encode())
        return sha256.hexdigest()

    @cached_property
    def _entry(self) -> Path:
        """In the cache, by names, sizes and times of the files and by what is made of them; no ending yet."""
        sha256 = hashlib.sha256(repr((self.shape, self.listing.by_prefix)).encode())
        for part, files in self.listing.files.items():
            for path, name in files:
                status = path.stat()
                times = status.st_mtime_ns, status.st_ctime_ns  # the first can be set back, the second cannot
                where = path.relative_to(self.listing.root)
                sha256.update(repr((part, str(where), name, status.st_size, times)).encode())
        return cache_folder("pictures") / sha256.hexdigest()

    def _left_out(self) -> str:
        bad = self._decoded[1] if self.skips else {}
        return f"{len(bad)} pictures that cannot be read are left out: {_named(bad)}" if bad else ""

    @cached_property
    def _sound(self) -> dict[str, list[tuple[Path, str]]]:
        """The files that count: all, or those that can be decoded where the others are skipped."""
        bad = self._decoded[1] if self.skips else {}
        return {part: [each for each in files if each[0] not in bad] for part, files in self.listing.files.items()}

    @cached_property
    def _decoded(self) -> tuple[np.ndarray, dict[Path, str]]:
        """All pictures in the listing's order, and why some could not be decoded; made where they are not there."""
        paths = [path for files in self.listing.files.values() for path, _ in files]
        store = PictureStore(self._entry, self.listing.root, paths, self.shape, self.team, self.progress)
        store.make()
        bad = {path: why for each in self.team.each(lambda: self._bad(store)) for path, why in each.items()}
        return store.images, bad

    def _bad(self, store: PictureStore) -> dict[Path, str]:
        """Why some pictures could not be decoded, where these are to be skipped."""
        if (bad := store.failures) and not self.skips:
            count = f"{len(bad)} of {len(store.paths)} pictures"
            raise DataError(f"{count} cannot be read: {_named(bad)}; see data.corrupt=skip")
        return bad


def _named(bad: Mapping[Path, str]) -> str:
    """The first of the pictures that cannot be read, and why."""
    named = "; ".join(f"{path}: {why}" for path, why in list(bad.items())[:MOST_NAMED])
    return named + (f"; and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else "")
