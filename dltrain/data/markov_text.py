"""A text from a known source, of which no model can predict more than the source's entropy rate leaves."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from functools import cached_property
from string import ascii_lowercase

import numpy as np

from .dataset import Dataset, Examples
from .facts import TextFacts
from .preparation import Tokens
from .text import check_windows, digest_of, windows

__all__ = ["markov_text"]

# Of the Dirichlet distribution that transitions are drawn from: some letters are likely, and none is certain.
CONCENTRATION = 0.5


def markov_text(
    *,
    order: int = 1,
    letters: int = 5,
    length: int = 35,
    num_train: int = 3_000,
    num_test: int = 300,
    seed: int = 0,
) -> MarkovText:
    """Windows of a text in which each letter depends on the `order` ones before it, by probabilities drawn from a seed.

    Its entropy rate, -sum pi_i P_ij ln P_ij over the stationary distribution pi, is told at the start. See `text` for
    the windows; the tests' are the end of the text.
    """
    for key, value, least, most in (("order", order, 1, 2), ("letters", letters, 2, len(ascii_lowercase))):
        if not least <= value <= most:
            raise ValueError(f"data.{key}={value}: must be from {least} to {most}")
    for key, value, least in (("num_train", num_train, 2), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"data.{key}={value}: must be {least} or more")
    check_windows(length=length, test_size=num_test)
    return MarkovText(order, letters, length, num_train, num_test, seed)


@dataclass
class MarkovText(Dataset):
    """A Dataset that is drawn when it is loaded."""

    order: int
    letters: int
    length: int
    num_train: int
    num_test: int
    seed: int

    @cached_property
    def transitions(self) -> np.ndarray:
        """Probabilities (letters ** order, letters) of the next letter after each context, the newest letter last."""
        generator = np.random.default_rng(self.seed)
        return generator.dirichlet([CONCENTRATION] * self.letters, size=self.letters**self.order)

    @property
    def entropy_rate(self) -> float:
        """In nats a letter."""
        logarithms = np.log(self.transitions, out=np.zeros_like(self.transitions), where=self.transitions > 0)
        return float(-stationary(self.transitions) @ (self.transitions * logarithms).sum(axis=1))

    @cached_property
    def numbers(self) -> np.ndarray:
        """The text as letters' numbers, int64."""
        count = (self.num_train + self.num_test) * self.length + 1
        cumulative = self.transitions.cumsum(axis=1)[:, :-1].tolist()
        contexts = len(cumulative)
        drawn, context = [], 0
        for number in np.random.default_rng([self.seed, 1]).random(count).tolist():
            letter = bisect(cumulative[context], number)
            drawn.append(letter)
            context = (context * self.letters + letter) % contexts
        return np.array(drawn, dtype=np.int64)

    def facts(self) -> TextFacts:
        counts = {"train": self.num_train, **({"test": self.num_test} if self.num_test else {})}
        return TextFacts(
            num_examples=counts,
            class_names=tuple(ascii_lowercase[: self.letters]),
            length=self.length,
            tokens=Tokens(),
            entropy_rate=self.entropy_rate,
        )

    def load(self) -> dict[str, Examples]:
        return windows(self.numbers, length=self.length, test_size=self.num_test)

    def fingerprint(self) -> str:
        return digest_of(ascii_lowercase[: self.letters], self.numbers)


def stationary(transitions: np.ndarray) -> np.ndarray:
    """The distribution (contexts,) over contexts that a step of the source leaves as it is."""
    contexts, letters = transitions.shape
    step = np.zeros((contexts, contexts))
    for letter in range(letters):
        step[np.arange(contexts), (np.arange(contexts) * letters + letter) % contexts] += transitions[:, letter]
    equations = np.vstack([step.T - np.eye(contexts), np.ones(contexts)])
    solution, *_ = np.linalg.lstsq(equations, np.append(np.zeros(contexts), 1.0), rcond=None)
    return np.asarray(solution)
