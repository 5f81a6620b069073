"""The parity gate: what a file makes of real examples against what the run does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_EXAMPLES, BATCH = 512, 64


class ParityError(Exception):
    """A file does not do what the run does."""

    exit_code = 70


@dataclass(frozen=True)
class Parity:
    """How near a file comes to the run: over so many examples no output differs by more than `largest`.

    `scale` is the magnitude of the run's largest output, and tolerance * scale is allowed.
    """

    examples: int
    largest: float
    scale: float
    tolerance: float


def parts(count: int) -> list[int]:
    """Sizes of batches: first one alone, then many, so that a batch of any size is proven to work."""
    rest = count - 1
    return [size for size in (1, *[BATCH] * (rest // BATCH), rest % BATCH) if size]


def compare(expected: np.ndarray, found: np.ndarray, *, tolerance: float, class_names: Sequence[str]) -> Parity:
    """Hold outputs (N, ...) of a file against those of the run. Raises ParityError that says the first reason.

    Classes lie along axis 1. A changed label is refused even where two logits of the run all but tie: the tolerance
    is for logits, and whoever reads labels sees another answer.
    """
    if bad := _not_finite(expected):
        raise ParityError(f"the run's own outputs are not finite, first of example {bad[0]}")
    if found.shape != expected.shape:
        raise ParityError(f"its outputs are {found.shape}, and the run's {expected.shape}")
    if bad := _not_finite(found):
        raise ParityError(f"its outputs are not finite for {len(bad)} of {len(found)}, first example {bad[0]}")
    difference = np.abs(found.astype(np.float64) - expected)
    scale, largest = float(np.abs(expected).max()), float(difference.max())
    changed = _changed(expected, found) if class_names else []
    labels = f"{len(changed)} of {len(found)} examples change their labels"
    if largest > tolerance * scale:
        where = int(difference.reshape(len(found), -1).max(1).argmax())
        allowed = f"{tolerance:g} of the largest, {scale:.3g}, is allowed"
        raise ParityError(f"an output of example {where} differs by {largest:.3g}, and {allowed}; {labels}")
    if changed:
        raise ParityError(f"{labels}, the first one {changed[0]}, {_words(expected, found, changed[0], class_names)}")
    return Parity(len(found), largest, scale, tolerance)


def _not_finite(outputs: np.ndarray) -> list[int]:
    """The examples that lead to a NaN or Inf."""
    return [int(place) for place in np.flatnonzero(~np.isfinite(outputs.reshape(len(outputs), -1)).all(1))]


def _changed(expected: np.ndarray, found: np.ndarray) -> list[int]:
    """The examples with another likeliest class, of texts at any place."""
    other = (expected.argmax(1) != found.argmax(1)).reshape(len(expected), -1).any(1)
    return [int(place) for place in np.flatnonzero(other)]


def _words(expected: np.ndarray, found: np.ndarray, place: int, names: Sequence[str]) -> str:
    """What became of an example, and by how little the run had preferred what it did."""
    before, after = (outputs[place].reshape(len(names), -1) for outputs in (expected, found))
    where = int((before.argmax(0) != after.argmax(0)).argmax())
    first, second = int(before[:, where].argmax()), int(after[:, where].argmax())
    margin = float(before[first, where] - before[second, where])
    return f"from {names[first]!r} to {names[second]!r}, whose logits in the run are {margin:.3g} apart"
