"""IDX files and folders: what is read, and every way in which they can be wrong."""

import gzip
import os

import numpy as np
import pytest

from dltrain.data import idx
from dltrain.data.dataset import DataError
from dltrain.data.idx_file import encode, read_decoded, read_shape

NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
IMAGES = NAMES["train", "images"]
LABELS = NAMES["train", "labels"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def arrays():
    random = np.random.default_rng(0)
    for (part, kind), name in NAMES.items():
        count = 12 if part == "train" else 5
        yield name, random.integers(0, 10 if kind == "labels" else 256, (count, 4, 4)[: 3 if kind == "images" else 1])


@pytest.fixture
def folder(tmp_path):
    """Four files, of which the images are gzipped."""
    for name, values in arrays():
        data = encode(values.astype(np.uint8))
        if "images" in name:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        else:
            (tmp_path / name).write_bytes(data)
    return tmp_path


def refusal(action, *parts, exit_code=66):
    """The one line of the DataError, which must hold the parts."""
    with pytest.raises(DataError) as caught:
        action()
    line = str(caught.value)
    assert caught.value.exit_code == exit_code
    assert "\n" not in line
    for part in parts:
        assert str(part) in line
    return line


def test_folder_is_read_as_written(folder):
    dataset = idx(root=str(folder))
    facts, parts = dataset.facts(), dataset.load()
    expected = dict(arrays())
    assert facts.num_examples == {"train": 12, "test": 5}
    assert (facts.in_channels, facts.image_size, facts.num_classes) == (1, 4, 10)
    assert facts.class_names == tuple("0123456789")
    np.testing.assert_array_equal(parts["train"].inputs[:, 0], expected[IMAGES])
    np.testing.assert_array_equal(parts["test"].targets, expected[NAMES["test", "labels"]])
    np.testing.assert_array_equal(dataset.labels(), parts["train"].targets)
    assert parts["train"].inputs.dtype == np.uint8
    assert parts["train"].targets.dtype == np.int64


def test_fingerprint_follows_the_bytes_not_the_packing(folder):
    def fingerprint():
        dataset = idx(root=str(folder))
        dataset.load()
        return dataset.fingerprint()

    before = fingerprint()
    packed = folder / f"{IMAGES}.gz"
    (folder / IMAGES).write_bytes(gzip.decompress(packed.read_bytes()))
    assert fingerprint() == before
    altered = bytearray((folder / IMAGES).read_bytes())
    altered[-1] ^= 1
    (folder / IMAGES).write_bytes(altered)
    assert fingerprint() != before


def test_folder_name_means_one_in_the_cache(folder, tmp_path):
    cache = tmp_path / "cache" / "dltrain"
    refusal(idx(folder="letters").facts, cache / "letters", "no such folder", "data.root=")
    cache.mkdir(parents=True)
    (cache / "letters").symlink_to(folder)
    assert idx(folder="letters", class_names=list("abcdefghij")).facts().class_names == tuple("abcdefghij")


def test_root_is_needed():
    with pytest.raises(ValueError, match=r"data\.root=null"):
        idx()


FAULTS = {
    "empty": (lambda data: b"", "empty"),
    "header cut": (lambda data: data[:9], "within its header"),
    "values cut": (lambda data: data[:-3], "truncated"),
    "trailing bytes": (lambda data: data + b"x", "goes on past"),
    "another type": (lambda data: data[:2] + b"\x0d" + data[3:], "starts with 00000d"),
    "labels as images": (lambda data: encode(np.zeros(9, np.uint8)), "starts with 00000801"),
    "bomb": (lambda data: data[:4] + b"\xff" * 12 + data[16:], "are allowed"),
    "no values": (lambda data: encode(np.zeros((0, 4, 4), np.uint8)), "declares no values"),
    "more declared": (lambda data: encode(np.zeros((13, 4, 4), np.uint8))[:16] + data[16:], "truncated"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_malformed_images(folder, fault, packed):
    change, words = FAULTS[fault]
    path = folder / f"{IMAGES}.gz"
    data = change(gzip.decompress(path.read_bytes()))
    if packed:
        path.write_bytes(gzip.compress(data))
    else:
        path.unlink()
        path = folder / IMAGES
        path.write_bytes(data)
    refusal(lambda: read_decoded(path, dimensions=3), path, words, "data.root=")
    refusal(idx(root=str(folder)).load, folder)


@pytest.mark.parametrize("keep", [0, 1, 15, 40, -1])
def test_truncated_gzip(folder, keep):
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    refusal(idx(root=str(folder)).load, path)


def test_no_altered_byte_of_a_gzip_changes_what_is_read(folder):
    path = folder / f"{LABELS}.gz"
    plain = (folder / LABELS).read_bytes()
    original = gzip.compress(plain, mtime=0)
    seen = 0
    for position in range(len(original)):
        altered = bytearray(original)
        altered[position] ^= 0x10
        path.write_bytes(altered)
        try:
            decoded = read_decoded(path, dimensions=1)
        except DataError:
            seen += 1
        else:
            assert decoded.tobytes() == plain
    # What is not seen stands in the gzip header's time and system, or in bits that fill up a byte.
    assert seen >= len(original) - 10


def test_what_is_no_regular_file(folder):
    path = folder / LABELS
    path.unlink()
    path.mkdir()
    refusal(idx(root=str(folder)).facts, path, "not a regular file")
    path.rmdir()
    os.mkfifo(path)
    refusal(idx(root=str(folder)).facts, path, "not a regular file")


def test_missing_file_is_named(folder):
    (folder / LABELS).unlink()
    refusal(idx(root=str(folder)).facts, folder, LABELS, "missing")


def test_counts_and_labels_must_agree(folder):
    path = folder / LABELS
    path.write_bytes(encode(np.zeros(11, np.uint8)))
    refusal(idx(root=str(folder)).facts, path, "11 labels for 12 images")
    path.write_bytes(encode(np.full(12, 10, np.uint8)))
    refusal(idx(root=str(folder)).labels, path, "label 10")
    refusal(idx(root=str(folder)).load, path, "label 10")


def test_images_must_be_square_and_of_one_size(folder):
    (folder / f"{IMAGES}.gz").unlink()
    (folder / IMAGES).write_bytes(encode(np.zeros((12, 4, 5), np.uint8)))
    refusal(idx(root=str(folder)).facts, folder / IMAGES, "4x5")
    (folder / IMAGES).write_bytes(encode(np.zeros((12, 5, 5), np.uint8)))
    refusal(idx(root=str(folder)).facts, "(4, 4)", "(5, 5)")


def test_facts_read_headers_alone(folder):
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:-8] + b"damaged.")
    assert read_shape(path, dimensions=3) == (12, 4, 4)
    assert idx(root=str(folder)).facts().num_examples["train"] == 12
