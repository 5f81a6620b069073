"""Which examples train, which validate and which test: counts first, then index arrays, then the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from .dataset import Chosen, Examples, Facts

# Keeps the draw of the split apart from other draws of the same seed.
SPLIT_STREAM = 0x5911


def split_facts(
    facts: Facts,
    labels: Mapping[str, np.ndarray] | None = None,
    *,
    val_size: int = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
) -> Facts:
    """The facts after splitting, without an image being read; `num_examples` counts train, val and test.

    `labels` by part are needed for `classes` alone. Raises ValueError for what the data cannot give.
    """
    counts = facts.num_examples
    names = facts.class_names
    if classes is not None:
        assert labels is not None, "classes are counted in the labels"
        _check_classes(classes, num_classes=facts.num_classes)
        counts = {part: len(keep(labels[part], classes)) for part in counts}
        names = tuple(names[label] for label in classes)
    train = _count_train(counts["train"], val_size=val_size, train_size=train_size)
    num_examples = {"train": train, "val": val_size, "test": counts["test"]}
    return replace(facts, num_classes=len(names), class_names=names, num_examples=num_examples)


def split_examples(
    parts: Mapping[str, Examples],
    *,
    val_size: int = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Examples]:
    """The examples of train, val and test, no image copied, with labels renumbered in the order of `classes`."""
    train, test = parts["train"], parts["test"]
    chosen = split(train.labels, val_size=val_size, train_size=train_size, classes=classes, seed=seed)
    return {
        "train": _take(train, chosen["train"], classes),
        "val": _take(train, chosen["val"], classes),
        "test": _take(test, keep(test.labels, classes), classes),
    }


def split(
    labels: np.ndarray,
    *,
    val_size: int = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Ascending indices into the training part for train and val.

    Validation examples are drawn first, so that they are the same for every `train_size`.
    """
    kept = keep(labels, classes)
    count = _count_train(len(kept), val_size=val_size, train_size=train_size)
    drawn = kept[np.random.default_rng([seed, SPLIT_STREAM]).permutation(len(kept))]
    return {"train": np.sort(drawn[val_size : val_size + count]), "val": np.sort(drawn[:val_size])}


def keep(labels: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    """Indices of the examples of these classes, of all where `classes` is None."""
    return np.arange(len(labels)) if classes is None else np.flatnonzero(np.isin(labels, classes))


def _take(examples: Examples, indices: np.ndarray, classes: Sequence[int] | None) -> Examples:
    if len(indices) == len(examples.labels) and classes is None:
        return examples
    labels = examples.labels[indices]
    if classes is not None:
        renumbered = np.zeros(max(classes) + 1, np.int64)
        renumbered[list(classes)] = np.arange(len(classes))
        labels = renumbered[labels]
    return Examples(Chosen(examples.images, indices), labels)


def _count_train(available: int, *, val_size: int, train_size: int | None) -> int:
    if not 0 <= val_size < available:
        raise ValueError(f"data.val_size={val_size}: the training part has {available} examples")
    rest = available - val_size
    if train_size is not None and not 1 <= train_size <= rest:
        raise ValueError(f"data.train_size={train_size}: {rest} training examples are left by data.val_size={val_size}")
    return rest if train_size is None else train_size


def _check_classes(classes: Sequence[int], *, num_classes: int) -> None:
    known = set(range(num_classes))
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= known:
        raise ValueError(f"data.classes={list(classes)}: name two or more different ones of 0 to {num_classes - 1}")
