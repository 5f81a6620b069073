"""Batches: what an epoch serves, that each batch is a function of its place, and resizing against torchvision."""

from itertools import chain

import numpy as np
import pytest
import torch

from dltrain.data import fashion_mnist
from dltrain.data.augment import crop_flip
from dltrain.data.batches import Batches, batch_bounds, mix
from dltrain.data.fashion_mnist import DEBIAN_FOLDER
from dltrain.data.preparation import AsStored, Pixels
from dltrain.data.resize import resize, resize_matrix
from dltrain.data.statistics import mean_and_deviation

COUNT = 45
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (COUNT, 2, 8, 8)).astype(np.uint8))
LABELS = torch.arange(COUNT)
CONTIGUOUS = torch.contiguous_format


def batches(**changes):
    pixels = {"image_size": 8, "mean": torch.zeros(2, 1, 1), "deviation": torch.ones(2, 1, 1)}
    how = Pixels(**{key: changes.pop(key, value) for key, value in {**pixels, "memory_format": CONTIGUOUS}.items()})
    count = changes.pop("count", COUNT)
    return Batches(IMAGES[:count], LABELS[:count], prepare=how, **{"batch_size": 10, **changes})


def served(serving, epoch=0, start=0):
    return [labels.tolist() for _, labels in serving.epoch(epoch, start)]


def order(serving, epoch=0):
    return list(chain(*served(serving, epoch)))


def test_unshuffled_epoch_serves_everything_in_order():
    serving = batches()
    assert order(serving) == list(range(COUNT))
    assert (len(serving), serving.num_examples) == (5, COUNT)
    torch.testing.assert_close(torch.cat([images for images, _ in serving.epoch(0)]), IMAGES.float())


def test_shuffled_epochs_differ_and_serve_everything():
    serving = batches(shuffle=True, seed=1)
    first, second = order(serving, 0), order(serving, 1)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert first != order(batches(shuffle=True, seed=2), 0)
    for images, labels in serving.epoch(3):
        torch.testing.assert_close(images, IMAGES[labels].float())


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(45, 10, [10, 10, 10, 10, 5]), (41, 10, [10, 10, 10, 11]), (40, 10, [10] * 4), (1, 10, [1]), (3, 1, [1, 1, 1])],
)
def test_last_batch(count, batch_size, sizes):
    serving = batches(count=count, batch_size=batch_size)
    assert [len(labels) for labels in served(serving)] == sizes
    assert len(serving) == len(sizes)
    assert [last - first for first, last in batch_bounds(count, batch_size=batch_size)] == sizes


def test_limit_is_a_count_of_batches():
    serving = batches(limit=2)
    assert (len(serving), serving.num_examples) == (2, 20)
    assert served(serving) == served(batches())[:2]
    assert len(batches(limit=99)) == 5


def test_overfit_repeats_the_first_batches():
    serving = batches(shuffle=True, overfit=2, limit=5)
    first = served(serving)
    assert first == [first[0], first[1], first[0], first[1], first[0]]
    assert first[0] != first[1]
    assert served(serving, 7) == first
    assert serving.num_examples == 50


def test_starting_in_the_middle_and_history_change_nothing():
    serving = batches(shuffle=True, augment=crop_flip(padding=2), image_size=12)
    whole = list(serving.epoch(4))
    torch.rand(3)
    for start in (0, 2, 4):
        for (images, labels), (again, labels_again) in zip(whole[start:], serving.epoch(4, start), strict=True):
            assert torch.equal(images, again)
            assert torch.equal(labels, labels_again)
    assert not list(serving.epoch(4, 5))


def test_augmentation_differs_by_epoch_position_and_seed():
    image = IMAGES[:1].expand(40, -1, -1, -1)

    def first_batches(seed, epoch):
        serving = Batches(
            image, LABELS[:40], batch_size=20, prepare=AsStored(), augment=crop_flip(padding=2), seed=seed
        )  # fmt: skip
        return [images for images, _ in serving.epoch(epoch)]

    seen = [images for seed in (0, 1) for epoch in (0, 1) for images in first_batches(seed, epoch)]
    for i, images in enumerate(seen):
        assert not any(torch.equal(images, other) for other in seen[:i])


def test_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    list(batches(shuffle=True, augment=crop_flip(padding=2)).epoch(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_resident_images_are_not_changed():
    before = IMAGES.clone()
    list(batches(augment=crop_flip(padding=2), mean=torch.full((2, 1, 1), 9.0)).epoch(0))
    assert torch.equal(IMAGES, before)


def test_seeds_differ_in_the_bits_that_torch_reads():
    seeds = {
        mix(seed, epoch, position) & 0xFFFFFFFF for seed in range(4) for epoch in range(20) for position in range(500)
    }
    assert len(seeds) > 40_000 - 5


@pytest.mark.parametrize("standardize", ["channel", "feature", "none"])
def test_served_images_are_standardized(standardize):
    mean, deviation = mean_and_deviation(IMAGES, standardize=standardize)
    served_images = torch.cat([images for images, _ in batches(mean=mean, deviation=deviation).epoch(0)])
    expected = (IMAGES.float() - mean) / deviation
    torch.testing.assert_close(served_images, expected)
    if standardize != "none":
        axes = (0, 2, 3) if standardize == "channel" else (0,)
        assert served_images.mean(axes).abs().max() < 1e-5
        assert (served_images.std(axes, correction=0) - 1).abs().max() < 1e-5


def test_standardizing_before_resizing_equals_after():
    mean, deviation = mean_and_deviation(IMAGES)
    resized = resize(IMAGES.float(), resize_matrix(8, 20))
    images = torch.cat([images for images, _ in batches(image_size=20, mean=mean, deviation=deviation).epoch(0)])
    torch.testing.assert_close(images, (resized - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_memory_format():
    images, _ = next(batches(image_size=12, memory_format=torch.channels_last).epoch(0))
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", [None, crop_flip()])
def test_images_of_one_channel_name_the_format_that_was_chosen(augment):
    """Convolutions go by the strides, and those of a single channel may name either."""
    stored = np.moveaxis(IMAGES[:, :1].numpy(), 1, -1).copy().transpose(0, 3, 1, 2)
    prepare = Pixels(8, torch.zeros(1, 1, 1), torch.ones(1, 1, 1), CONTIGUOUS)
    serving = Batches(stored, LABELS, prepare=prepare, batch_size=10, shuffle=True, augment=augment)
    assert {images.stride() for images, _ in serving.epoch(0)} == {(64, 64, 8, 1)}


def test_resize_ignores_autocast():
    matrix = resize_matrix(8, 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = resize(IMAGES.float(), matrix)
    assert torch.equal(images, resize(IMAGES.float(), matrix))


@pytest.fixture(scope="module")
def garments(tmp_path_factory):
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return torch.from_numpy(fashion_mnist().load()["test"].inputs[:256])


@pytest.mark.parametrize("size", [28, 32, 29, 64, 96, 224])
def test_resize_equals_torchvision_on_real_images(garments, size):
    from torchvision.transforms.v2.functional import resize as expected

    ours = resize(garments.float(), resize_matrix(28, size))
    assert (ours - expected(garments.float(), [size, size], antialias=True)).abs().max() < 1e-3
    assert (ours.round() - expected(garments, [size, size], antialias=True).float()).abs().max() <= 1


@pytest.mark.parametrize("size", [28, 32, 60])
def test_resize_down_equals_torchvision(garments, size):
    from torchvision.transforms.v2.functional import resize as expected

    large = expected(garments, [96, 96], antialias=True)
    ours = resize(large.float(), resize_matrix(96, size))
    assert (ours - expected(large.float(), [size, size], antialias=True)).abs().max() < 1e-3
    assert (ours.round() - expected(large, [size, size], antialias=True).float()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("workers", [None, 0, 2])
def test_an_epoch_never_waits_for_cuda(workers):
    serving = batches(shuffle=True, augment=crop_flip(padding=2), image_size=12, device="cuda", workers=workers)
    expected = [labels for _, labels in batches(shuffle=True).epoch(0)]
    epoch = serving.epoch(0)
    got = [next(epoch)[1]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        got += [labels for _, labels in epoch]
    finally:
        torch.cuda.set_sync_debug_mode("default")
        serving.close()
    assert [labels.tolist() for labels in got] == [labels.tolist() for labels in expected]
