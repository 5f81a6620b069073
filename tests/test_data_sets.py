"""CIFAR-10's records and the garments drawn in code."""

import time

import numpy as np
import pytest

from dltrain.data import __all__ as names
from dltrain.data import cifar10, fashion_mnist, synthetic
from dltrain.data.cifar10 import FILES, FOLDER, Cifar10
from dltrain.data.dataset import DataError, cache_folder
from dltrain.data.fashion_mnist import CLASS_NAMES
from dltrain.data.garments import GARMENTS, coverage, draw


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def batches(tmp_path):
    """Six files of 20 records, of which each image holds its label times 20, plus 0, 1, 2 by channel."""
    records = np.zeros((20, 3073), np.uint8)
    records[:, 0] = np.arange(20) % 10
    records[:, 1:] = records[:, :1] * 20 + np.repeat([0, 1, 2], 1024).astype(np.uint8)
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in (name for part in FILES.values() for name in part):
        records.tofile(folder / name)
    return folder


def small(folder):
    return Cifar10(folder, records=20)


def test_cifar10_is_read(batches):
    for root in (batches, batches.parent):
        dataset = small(root)
        parts = dataset.load()
        facts = dataset.facts()
        assert facts.num_examples == {"train": 100, "test": 20}
        assert (facts.in_channels, facts.image_size, facts.num_classes) == (3, 32, 10)
        images, labels = parts["train"].inputs, parts["train"].targets
        assert images.shape == (100, 3, 32, 32)
        np.testing.assert_array_equal(images, np.broadcast_to(
            (labels[:, None] * 20 + np.arange(3))[:, :, None, None], images.shape
        ))  # fmt: skip
        np.testing.assert_array_equal(dataset.labels("test"), parts["test"].targets)
        assert len(dataset.fingerprint()) == 64


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "0 bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes instead of"),
        (lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]), "label 10"),
    ],
)
def test_cifar10_damaged(batches, damage, words):
    path = batches / "data_batch_3.bin"
    damage(path)
    with pytest.raises(DataError, match=words) as caught:
        small(batches).load()
    assert str(path) in str(caught.value)
    assert "data.root=" in str(caught.value)
    assert caught.value.exit_code == 66


def test_cifar10_without_data_says_where_it_looked():
    with pytest.raises(DataError, match="cifar-10-binary") as caught:
        cifar10().facts()
    assert str(cache_folder("cifar10")) in str(caught.value)


def test_synthetic_has_the_shapes_and_classes_of_fashion_mnist():
    dataset = synthetic(num_train=300, num_test=50)
    facts, parts = dataset.facts(), dataset.load()
    assert facts.class_names == CLASS_NAMES == tuple(GARMENTS)
    assert facts.num_examples == {"train": 300, "test": 50}
    assert parts["train"].inputs.shape == (300, 1, 28, 28)
    assert parts["train"].inputs.dtype == np.uint8
    assert set(parts["train"].targets) == set(range(10))
    np.testing.assert_array_equal(dataset.labels("test"), parts["test"].targets)


def test_synthetic_image_depends_on_seed_and_index_alone():
    many, few = synthetic(num_train=400).load()["train"], synthetic(num_train=150).load()["train"]
    np.testing.assert_array_equal(many.inputs[:150], few.inputs)
    np.testing.assert_array_equal(many.targets[:150], few.targets)
    other = synthetic(num_train=150, seed=1).load()
    assert not np.array_equal(other["train"].inputs, few.inputs)
    assert not np.array_equal(other["train"].inputs, other["test"].inputs[:150])


def test_synthetic_is_drawn_quickly():
    began = time.process_time()
    draw(1000, seed=(0, 0))
    assert time.process_time() - began < 0.5


def test_synthetic_is_learnable_but_not_trivial():
    """Nearest class mean: far above chance, far below a solved task."""
    parts = synthetic(num_train=3000, num_test=500).load()
    train, test = (
        (part.inputs.reshape(len(part.targets), -1).astype(np.float32), part.targets) for part in parts.values()
    )
    means = np.stack([train[0][train[1] == label].mean(0) for label in range(10)])
    nearest = ((test[0][:, None] - means) ** 2).sum(-1).argmin(1)
    assert 0.25 < (nearest == test[1]).mean() < 0.75


def test_coverage_is_exact_for_rectangles():
    x0, x1, y0, y1 = 3.25, 10.5, 4.0, 9.0
    clockwise = np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]], np.float32)
    for points in (clockwise, clockwise[:, ::-1]):
        covered = coverage(points)[0]
        np.testing.assert_allclose(covered.sum(), (x1 - x0) * (y1 - y0), rtol=1e-6)
        np.testing.assert_allclose(covered[5, 3], 0.75, rtol=1e-6)
        np.testing.assert_allclose(covered[5, 10], 0.5, rtol=1e-6)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"data\.num_train=0"):
        synthetic(num_train=0)


def test_every_component_answers_facts_or_says_why(tmp_path):
    assert set(names) == {
        "fashion_mnist", "idx", "cifar10", "synthetic", "csv", "linear_synthetic", "image_folder", "function", "text",
        "markov_text",
    }  # fmt: skip
    with pytest.raises(DataError):
        fashion_mnist(root=str(tmp_path / "nowhere")).facts()
