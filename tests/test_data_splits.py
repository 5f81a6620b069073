"""Splits, class choices and the statistics of the training part."""

import numpy as np
import pytest
import torch

from dltrain.data.dataset import Examples
from dltrain.data.facts import ImageFacts
from dltrain.data.splits import split, split_examples, split_facts
from dltrain.data.statistics import mean_and_deviation

LABELS = np.random.default_rng(0).integers(0, 4, 200)
TEST_LABELS = np.random.default_rng(1).integers(0, 4, 60)
FACTS = ImageFacts(
    in_channels=1, image_size=28, class_names=("a", "b", "c", "d"), num_examples={"train": 200, "test": 60}
)


def examples(labels):
    """Images that hold their own index."""
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Examples(images, labels.astype(np.int64))


PARTS = {"train": examples(LABELS), "test": examples(TEST_LABELS)}


def test_parts_are_disjoint_and_complete():
    chosen = split(LABELS, val_size=50, seed=0)
    assert sorted([*chosen["train"], *chosen["val"]]) == list(range(200))
    assert len(chosen["val"]) == 50


def test_split_follows_the_seed():
    def val(seed):
        return split(LABELS, val_size=50, seed=seed)["val"].tolist()

    assert val(0) == val(0)
    assert val(0) != val(1)
    assert val(0) != list(range(50))


def test_val_is_the_same_for_every_train_size():
    large, small = split(LABELS, val_size=50, seed=3), split(LABELS, val_size=50, train_size=20, seed=3)
    np.testing.assert_array_equal(large["val"], small["val"])
    assert len(small["train"]) == 20
    assert set(small["train"]) < set(large["train"])


def test_classes_are_kept_and_renumbered_in_their_order():
    parts = split_examples(PARTS, val_size=10, classes=[3, 1], seed=0)
    for name, original in (("train", LABELS), ("val", LABELS), ("test", TEST_LABELS)):
        indices = parts[name].inputs[:].ravel()
        np.testing.assert_array_equal(np.array([3, 1])[parts[name].targets], original[indices])
    assert len(parts["train"].targets) + 10 == np.isin(LABELS, [1, 3]).sum()


@pytest.mark.parametrize(
    "choice",
    [{}, {"val_size": 50}, {"val_size": 50, "train_size": 7}, {"val_size": 5, "train_size": 9, "classes": [2, 0]}],
)
def test_facts_foretell_the_examples(choice):
    facts = split_facts(FACTS, {"train": LABELS, "test": TEST_LABELS}, **choice)
    parts = split_examples(PARTS, seed=0, **choice)
    assert facts.num_examples == {name: len(part.targets) for name, part in parts.items()}
    assert facts.num_classes == len(facts.class_names)
    if "classes" in choice:
        assert facts.class_names == ("c", "a")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"val_size": 200}, r"data\.val_size=200: the training part has 200 examples"),
        ({"val_size": -1}, r"data\.val_size=-1"),
        ({"val_size": 150, "train_size": 51}, r"data\.train_size=51: 50 training examples"),
        ({"train_size": 0}, r"data\.train_size=0"),
        ({"classes": [0, 4]}, r"data\.classes=\[0, 4\]: .* 0 to 3"),
        ({"classes": [1, 1]}, r"data\.classes"),
        ({"classes": [1]}, r"data\.classes"),
        ({"classes": []}, r"data\.classes"),
    ],
)
def test_impossible_splits_are_refused(choice, words):
    with pytest.raises(ValueError, match=words):
        split_facts(FACTS, {"train": LABELS, "test": TEST_LABELS}, **choice)


@pytest.mark.parametrize(("standardize", "axes"), [("channel", (0, 2, 3)), ("feature", (0,))])
def test_statistics_equal_numpy(standardize, axes):
    images = np.random.default_rng(0).integers(0, 256, (700, 3, 5, 5)).astype(np.uint8)
    images[:300, 1] = 255
    images[:, :, 0, 0] = 255
    mean, deviation = mean_and_deviation(images, standardize=standardize)
    expected = images.std(axes, dtype=np.float64)
    expected[expected == 0] = 1
    shape = (3, 1, 1) if standardize == "channel" else (3, 5, 5)
    assert mean.shape == deviation.shape == shape
    torch.testing.assert_close(mean.flatten(), torch.from_numpy(images.mean(axes)).flatten().float())
    torch.testing.assert_close(deviation.flatten(), torch.from_numpy(expected).flatten().float())
    if standardize == "feature":
        assert (deviation[:, 0, 0] == 1).all()


@pytest.mark.parametrize(("usual", "rare"), [(0, 1), (255, 254)])
def test_a_rare_feature_is_not_taken_for_a_constant(usual, rare):
    images = np.full((60_000, 1, 1, 1), usual, np.uint8)
    images[0] = rare
    _, deviation = mean_and_deviation(images, standardize="feature")
    assert deviation.item() == pytest.approx(images.std(dtype=np.float64), rel=1e-5)


def test_standardize_none_and_unknown():
    mean, deviation = mean_and_deviation(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), standardize="none")
    assert mean.tolist() == [[[0.0]]] * 3
    assert deviation.tolist() == [[[255.0]]] * 3
    with pytest.raises(ValueError, match=r"data\.standardize=pixel: choose one of channel, feature, none"):
        mean_and_deviation(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), standardize="pixel")
