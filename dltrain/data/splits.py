"""Which examples train, which validate and which test: counts first, then index arrays, then the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from .dataset import Examples
from .facts import Facts
from .stored import Chosen

ValSize = int | Literal["train"]

# Keeps the draw of the split apart from other draws of the same seed.
SPLIT_STREAM = 0x5911


def split_facts(
    facts: Facts,
    labels: Mapping[str, np.ndarray] | None = None,
    *,
    val_size: ValSize = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
) -> Facts:
    """The facts after splitting, without an input being read; `num_examples` counts train, val and test.

    A part "val" that the data bring themselves counts where `val_size` is 0, and is left alone otherwise.
    `labels` by part are needed for `classes` alone. Raises ValueError for what the data cannot give.
    """
    counts = facts.num_examples
    names = facts.class_names
    if classes is not None:
        _check_classes(classes, num_classes=facts.num_classes)
        assert labels is not None, "classes are counted in the labels"
        counts = {part: len(keep(labels[part], classes)) for part in counts}
        names = tuple(names[label] for label in classes)
    train = _count_train(counts["train"], val_size=val_size, train_size=train_size)
    if "val" in counts and val_size != 0:
        raise ValueError(f"data.val_size={val_size}: these data have a validation part of their own; it must be 0")
    val = train if val_size == "train" else counts.get("val", val_size)
    others = {part: count for part, count in counts.items() if part not in ("train", "val")}
    return replace(facts, class_names=names, num_examples={"train": train, "val": val, **others})


def split_examples(
    parts: Mapping[str, Examples],
    *,
    val_size: ValSize = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
    contiguous: bool = False,
    seed: int = 0,
) -> dict[str, Examples]:
    """The examples of train, val and test, no input copied, with labels renumbered in the order of `classes`."""
    train = parts["train"]
    how: dict[str, Any] = {"val_size": val_size, "train_size": train_size, "classes": classes}
    chosen = split(train.targets, **how, contiguous=contiguous, seed=seed)
    others = {
        part: _take(each, keep(each.targets, classes), classes) for part, each in parts.items() if part != "train"
    }
    return {name: _take(train, indices, classes) for name, indices in chosen.items()} | others


def split(
    labels: np.ndarray,
    *,
    val_size: ValSize = 0,
    train_size: int | None = None,
    classes: Sequence[int] | None = None,
    contiguous: bool = False,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Ascending indices into the training part for train and val, which are the same where `val_size` is "train".

    Validation examples are drawn first, so that they are the same for every `train_size`. Where neighbours belong
    together (`contiguous`), they are the last ones and nothing is drawn.
    """
    kept = keep(labels, classes)
    count = _count_train(len(kept), val_size=val_size, train_size=train_size)
    held = _held_out(val_size)
    if contiguous:
        held_out, rest = kept[len(kept) - held :], kept[:count]
        return {"train": rest, "val": rest if val_size == "train" else held_out}
    drawn = kept[np.random.default_rng([seed, SPLIT_STREAM]).permutation(len(kept))]
    train = np.sort(drawn[held : held + count])
    return {"train": train, "val": train if val_size == "train" else np.sort(drawn[:held])}


def keep(labels: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    """Indices of the examples of these classes, of all where `classes` is None."""
    return np.arange(len(labels)) if classes is None else np.flatnonzero(np.isin(labels, classes))


def _take(examples: Examples, indices: np.ndarray, classes: Sequence[int] | None) -> Examples:
    if len(indices) == len(examples.targets) and classes is None:
        return examples
    labels = examples.targets[indices]
    if classes is not None:
        renumbered = np.zeros(max(classes) + 1, np.int64)
        renumbered[list(classes)] = np.arange(len(classes))
        labels = renumbered[labels]
    return Examples(Chosen(examples.inputs, indices), labels)


def _held_out(val_size: ValSize) -> int:
    """Examples that validate and do not train."""
    return 0 if isinstance(val_size, str) else val_size


def _count_train(available: int, *, val_size: ValSize, train_size: int | None) -> int:
    if not 0 <= (held := _held_out(val_size)) < available:
        raise ValueError(f"data.val_size={val_size}: the training part has {available} examples")
    rest = available - held
    if train_size is not None and not 1 <= train_size <= rest:
        raise ValueError(f"data.train_size={train_size}: {rest} training examples are left by data.val_size={val_size}")
    return rest if train_size is None else train_size


def _check_classes(classes: Sequence[int], *, num_classes: int) -> None:
    known = set(range(num_classes))
    if num_classes == 0:
        raise ValueError(f"data.classes={list(classes)}: these data have no classes")
    if len(classes) < 2 or len(set(classes)) < len(classes) or not set(classes) <= known:
        raise ValueError(f"data.classes={list(classes)}: name two or more different ones of 0 to {num_classes - 1}")
