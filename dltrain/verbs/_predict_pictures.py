"""Pictures named by a run, a part of them at a time."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from torch import Tensor

from dltrain.data.pictures import PART, SUFFIXES, Shape, decode_all, elongation
from dltrain.data.preparation import Pixels
from dltrain.trained import Trained
from dltrain.verbs._listed import aligned, printable

UNREADABLE, WHITE = 66, 255
CLEARLY = 32  # grey levels by which the other way round must be nearer to the training pictures
LONGEST = 40
SQUASHED = 1.3  # times longer than wide, from which on a square shows something else


def predict_pictures(
    trained: Trained, named: Sequence[Path], *, top: int, as_json: bool, invert: bool, fit: str | None = None
) -> int:
    """Print the most probable classes of each picture; what cannot be read is named at the end, and 66 returned."""
    failures: dict[Path, str] = {}
    paths = [path for each in named for path in _below(each, failures)]
    shape = _shape(trained, fit)
    suspects = elongated = 0
    for first in range(0, len(paths), PART):
        part = paths[first : first + PART]
        (images,) = decode_all(part, shape, failures)
        if invert:
            images = WHITE - images
        rows = zip(part, images, trained.predict(images), strict=True)
        read = [(path, image, row) for path, image, row in rows if path not in failures]
        suspects += sum(_looks_inverted(image, trained) for _, image, _ in read)
        elongated += shape.fit == "squash" and sum(elongation(path) > SQUASHED for path, _, _ in read)
        told = [Named.of(path, row, trained.class_names, top=top) for path, _, row in read]
        _show(told, as_json=as_json)
    if suspects:
        which = "the picture looks" if len(paths) == 1 else f"{suspects} of {len(paths)} pictures look"
        _say(f"note: {which} inverted beside the training pictures: {_advice(invert)}")
    if elongated:
        which = "the picture is" if len(paths) == 1 else f"{elongated} of {len(paths)} pictures are"
        _say(f"note: {which} far from square and squashed into one: try --fit crop, or cut it around what it shows")
    for path, why in failures.items():
        _say(f"dltrain: {path}: {why}")
    return UNREADABLE if failures else 0


@dataclass(frozen=True)
class Named:
    """A picture's most probable classes, the first first: index, name, probability."""

    path: Path
    classes: list[tuple[int, str, float]]

    @classmethod
    def of(cls, path: Path, probabilities: Tensor, names: Sequence[str], *, top: int) -> "Named":
        best = probabilities.topk(min(top, len(names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return cls(path, [(index, names[index], value) for index, value in pairs])


def _below(path: Path, failures: dict[Path, str]) -> Iterator[Path]:
    """A file itself; of a folder the pictures in it and below, sorted."""
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        if not found:
            failures[path] = f"no pictures ({', '.join(SUFFIXES)}) in it"
        yield from found
    elif path.is_file():
        yield path
    else:
        failures[path] = "no such file"


def _shape(trained: Trained, fit: str | None) -> Shape:
    """That of the images which the preparation was made for; older runs know only that of the model's."""
    pixels = trained.preparation
    assert isinstance(pixels, Pixels)
    side = pixels.stored_size or (pixels.mean.shape[-1] if pixels.mean.shape[-1] > 1 else pixels.image_size)
    own = OmegaConf.select(trained.config, "data.fit", default="squash")
    return Shape(trained.facts["in_channels"], side, fit or own)


def _looks_inverted(image: np.ndarray, trained: Trained) -> bool:
    """Whether the mean of a picture with black and white exchanged is clearly nearer to the training pictures' mean."""
    assert isinstance(trained.preparation, Pixels)
    usual, mean = trained.preparation.level, float(image.mean())
    if usual is None:  # an older run
        return False
    return abs(mean - usual) - abs(WHITE - mean - usual) > CLEARLY


def _advice(invert: bool) -> str:
    return "try without --invert" if invert else "try --invert"


def _show(told: Sequence[Named], *, as_json: bool) -> None:
    if as_json:
        for each in told:
            ranks = [{"index": index, "class": name, "probability": value} for index, name, value in each.classes]
            print(json.dumps({"path": str(each.path), "predictions": ranks}))
    elif told:
        rows = [
            [_short(each.path) if rank == 0 else "", name, f"{value:.4f}"]
            for each in told
            for rank, (_, name, value) in enumerate(each.classes)
        ]
        print("\n".join(aligned({"picture": "left", "class": "left", "probability": "right"}, rows)))
    sys.stdout.flush()


def _short(path: Path) -> str:
    """A path by its end, where it is long."""
    text = printable(str(path))
    return text if len(text) <= LONGEST else f"...{text[3 - LONGEST :]}"


def _say(words: str) -> None:
    print(printable(words), file=sys.stderr)
