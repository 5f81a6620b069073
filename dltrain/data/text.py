"""A text cut into windows, each of whose tokens is to be told from those before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .dataset import DataError, Dataset, Examples
from .facts import TextFacts
from .preparation import Tokens

__all__ = ["text"]


def text(
    *,
    path: str | None = None,
    level: str = "char",
    lower: bool = False,
    length: int = 35,
    tokens: int | None = None,
    test_size: int = 0,
) -> Text:
    """A text file in UTF-8 as windows of `length` tokens, characters or words, that do not overlap.

    The first `tokens` count. The last `test_size` windows are kept for the test, those before them validate
    (`data.val_size`), so that what is held out is a text of its own. `data.shuffle=true` mixes the windows in every
    epoch; with false they are sequential: row j of a batch goes on where row j of the batch before ended. A recurrent
    state is 0 at the start of every window either way, and is carried over none. The vocabulary is that of the tokens
    that count.
    """
    if path is None:
        raise ValueError("data.path=null: data=text needs the path of a file")
    if level not in ("char", "word"):
        raise ValueError(f"data.level={level}: choose char or word")
    check_windows(length=length, test_size=test_size)
    if tokens is not None and tokens < 1:
        raise ValueError(f"data.tokens={tokens}: must be 1 or more")
    return Text(Path(path).expanduser(), Tokens(level=level, lower=lower), length, tokens, test_size)


@dataclass
class Text(Dataset):
    """A file as a Dataset, read once."""

    path: Path
    tokens: Tokens
    length: int
    most_tokens: int | None
    test_size: int

    @cached_property
    def content(self) -> list[str]:
        """The tokens that count."""
        try:
            content = self.path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror}; name the file with data.path=") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: not a text in UTF-8: {error}") from error
        found = self.tokens.split(content)[: self.most_tokens]
        kept = 2 + self.test_size
        if len(found) <= kept * self.length:
            needed = f"{kept} windows of data.length={self.length} take {kept * self.length + 1:,}"
            raise DataError(f"{self.path}: {len(found):,} {self.tokens.level}s; {needed}")
        return found

    @cached_property
    def vocabulary(self) -> list[str]:
        return sorted(set(self.content))

    @cached_property
    def numbers(self) -> np.ndarray:
        """The tokens' places in the vocabulary, int64."""
        places = {token: place for place, token in enumerate(self.vocabulary)}
        return np.array([places[token] for token in self.content], dtype=np.int64)

    def facts(self) -> TextFacts:
        if len(self.vocabulary) < 2:
            raise DataError(f"{self.path}: nothing but {self.vocabulary[0]!r}, of which nothing could be learned")
        windows = (len(self.content) - 1) // self.length
        counts = {"train": windows - self.test_size, **({"test": self.test_size} if self.test_size else {})}
        return TextFacts(
            num_examples=counts, class_names=tuple(self.vocabulary), length=self.length, tokens=self.tokens
        )

    def load(self) -> dict[str, Examples]:
        return windows(self.numbers, length=self.length, test_size=self.test_size)

    def fingerprint(self) -> str:
        return digest_of(self.vocabulary, self.numbers)


def check_windows(*, length: int, test_size: int) -> None:
    """Raise ValueError for windows that cannot be."""
    for key, value, least in (("length", length, 1), ("test_size", test_size, 0)):
        if value < least:
            raise ValueError(f"data.{key}={value}: must be {least} or more")


def windows(numbers: np.ndarray, *, length: int, test_size: int) -> dict[str, Examples]:
    """Windows (N, length) of a text, not copied, and the tokens that follow theirs; the last ones test."""
    count = (len(numbers) - 1) // length
    inputs, targets = (numbers[first : first + count * length].reshape(count, length) for first in (0, 1))
    train = count - test_size
    parts = {"train": slice(train), "test": slice(train, count)}
    return {part: Examples(inputs[place], targets[place]) for part, place in parts.items() if len(inputs[place])}


def digest_of(vocabulary: Sequence[str], numbers: np.ndarray) -> str:
    """SHA-256 (hex) of a text by its tokens."""
    return hashlib.sha256("\0".join(vocabulary).encode() + numbers.tobytes()).hexdigest()
