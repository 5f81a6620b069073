"""Tables of numbers: a row an example, a column the target."""

from __future__ import annotations

import hashlib
import math
from csv import reader
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from .dataset import DataError, Dataset, Examples
from .facts import VectorFacts, is_number, natural_order
from .preparation import Features
from .statistics import of_vectors

__all__ = ["csv"]

SEPARATORS = (",", ";", "\t", "|")  # else white space
# Which rows test is a function of the file alone, so that runs of all seeds are tested on the same ones.
TEST_STREAM = 0x7E57


def csv(
    *,
    path: str | None = None,
    target: int | str = -1,
    target_kind: str = "number",
    separator: str | None = None,
    header: bool | None = None,
    rows: int | None = None,
    test_size: int = 0,
    statistics: str = "train",
    standardize_target: bool = True,
) -> Table:
    """A text file of numbers, a row an example; every column but the target is a feature.

    The target is a column by its place, which may count from the end, or by its name in the header: a number to be
    met, or with `target_kind=class` the name of a class. Separator and header are recognized, unless given. The first
    `rows` count, of which `test_size` are kept for the test. What is standardized takes its mean and deviation from
    the training rows or, with `statistics=file`, from all rows of the file.
    """
    if path is None:
        raise ValueError("data.path=null: data=csv needs the path of a file")
    _check(target_kind=target_kind, statistics=statistics, separator=separator, rows=rows, test_size=test_size)
    file = Path(path).expanduser()
    return Table(
        File(file, separator=separator, header=header, target=target, classes=target_kind == "class"),
        rows=rows,
        test_size=test_size,
        of_file=statistics == "file",
        standardize_target=standardize_target,
    )


def _check(*, target_kind: str, statistics: str, separator: str | None, rows: int | None, test_size: int) -> None:
    """Raise ValueError for words and counts that cannot be."""
    for key, value, choices in (
        ("target_kind", target_kind, ("number", "class")),
        ("statistics", statistics, ("train", "file")),
    ):
        if value not in choices:
            raise ValueError(f"data.{key}={value}: choose {' or '.join(choices)}")
    if separator is not None and len(separator) != 1:
        raise ValueError(f"data.separator={separator}: must be one character, or null for white space")
    for key, count, least in (("rows", rows, 2), ("test_size", test_size, 0)):
        if count is not None and count < least:
            raise ValueError(f"data.{key}={count}: must be {least} or more")


@dataclass
class File:
    """What a file holds, read once."""

    path: Path
    separator: str | None
    header: bool | None
    target: int | str
    classes: bool

    @cached_property
    def lines(self) -> list[str]:
        """Those that hold something."""
        try:
            lines = [line for line in self.path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}; name the file with data.path=") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not a text file: {error}") from error
        if len(lines) < 2:
            raise DataError(f"{self.path}: {len(lines)} lines, and a table has a row at least for each of two examples")
        return lines

    @cached_property
    def cells(self) -> np.ndarray:
        """Texts (rows, columns), without the header."""
        first = 1 if self.has_header else 0
        rows = [self._split(line) for line in self.lines[first:]]
        width = len(self.names)
        for number, row in enumerate(rows, 1 + first):
            if len(row) != width:
                raise DataError(f"{self.path}: row {number} has {len(row)} columns, the first one {width}")
        return np.array(rows)

    @cached_property
    def names(self) -> list[str]:
        """Of the columns; their numbers where there is no header."""
        if self.separator is not None and self.separator not in self.lines[0]:
            raise DataError(f"{self.path}: no {self.separator!r} in row 1; see data.separator")
        cells = self._split(self.lines[0])
        return cells if self.has_header else [str(number) for number in range(len(cells))]

    @property
    def has_header(self) -> bool:
        if self.header is not None:
            return self.header
        features = [cell for place, cell in enumerate(self._split(self.lines[0])) if place != self.target]
        return not any(is_number(cell) for cell in features)

    @cached_property
    def column(self) -> int:
        """The place of the target."""
        if isinstance(self.target, str):
            if self.target not in self.names:
                raise DataError(f"{self.path}: no column {self.target!r}; there are {', '.join(self.names)}")
            return self.names.index(self.target)
        if not -len(self.names) <= self.target < len(self.names):
            raise DataError(f"{self.path}: no column {self.target}; there are {len(self.names)}")
        return self.target % len(self.names)

    def features(self) -> np.ndarray:
        """Float64 (rows, features)."""
        if len(self.names) < 2:
            raise DataError(f"{self.path}: one column, and there must be a feature and a target; try data.separator=")
        return np.stack([self._numbers(place) for place in range(len(self.names)) if place != self.column], axis=1)

    @property
    def class_names(self) -> list[str]:
        return sorted(set(self.cells[:, self.column]), key=natural_order) if self.classes else []

    def targets(self) -> np.ndarray:
        """Float64 (rows, 1), or classes int64 (rows,)."""
        if self.classes:
            places = {name: place for place, name in enumerate(self.class_names)}
            return np.array([places[name] for name in self.cells[:, self.column]], dtype=np.int64)
        return self._numbers(self.column)[:, None]

    def _numbers(self, column: int) -> np.ndarray:
        texts = self.cells[:, column]
        try:
            numbers = texts.astype(np.float64)
        except ValueError:
            numbers = np.array([float(text) if is_number(text) else math.nan for text in texts])
        if not (fine := np.isfinite(numbers)).all():
            row = int(np.argmin(fine))
            line, name = row + 1 + self.has_header, self.names[column]
            raise DataError(f"{self.path}: row {line}, column {name}: {str(texts[row])!r} is no number")
        return numbers

    def _split(self, line: str) -> list[str]:
        separator = self.separator or max(SEPARATORS, key=self.lines[0].count)
        parts = next(reader([line], delimiter=separator)) if separator in self.lines[0] else line.split()
        return [part.strip() for part in parts]


@dataclass
class Table(Dataset):
    """The rows of a file as a Dataset."""

    file: File
    rows: int | None
    test_size: int
    of_file: bool
    standardize_target: bool
    _digest: str = field(default="", init=False)

    def facts(self) -> VectorFacts:
        available = len(self.file.cells)
        count = available if self.rows is None else self.rows
        if count > available:
            raise DataError(f"data.rows={count}: {self.file.path} has {available}")
        if count - self.test_size < 2:
            raise DataError(f"data.test_size={self.test_size}: there are {count} rows, and two at least must train")
        num_examples = {"train": count - self.test_size, **({"test": self.test_size} if self.test_size else {})}
        return VectorFacts(
            num_examples=num_examples,
            class_names=tuple(self.file.class_names),
            num_features=len(self.file.names) - 1,
            standardize_target=self.standardize_target,
            given=self._of_all_rows() if self.of_file else None,
        )

    def load(self) -> dict[str, Examples]:
        count = sum(self.facts().num_examples.values())
        features, targets = self.file.features()[:count].astype(np.float32), self.file.targets()[:count]
        if not self.file.classes:
            targets = targets.astype(np.float32)
        self._digest = hashlib.sha256(features.tobytes() + targets.tobytes()).hexdigest()
        order = np.random.default_rng(TEST_STREAM).permutation(count)
        chosen = {"train": np.sort(order[self.test_size :]), "test": np.sort(order[: self.test_size])}
        return {part: Examples(features[rows], targets[rows]) for part, rows in chosen.items() if len(rows)}

    def fingerprint(self) -> str:
        assert self._digest, "known once load has run"
        return self._digest

    def _of_all_rows(self) -> Features:
        targets = () if self.file.classes or not self.standardize_target else of_vectors(self.file.targets())
        return Features(*of_vectors(self.file.features()), *targets)
