"""Augmentation: what each one does to an image, and that each image has draws of its own."""

import pytest
import torch
import torch.nn.functional as F

from dltrain.data import augment

COUNT, SIZE = 400, 8
LABELS = torch.arange(COUNT) % 3
ALIKE = (
    torch.rand(1, 2, SIZE, SIZE, generator=torch.Generator().manual_seed(5)).mul(200).add(1).expand(COUNT, -1, -1, -1)
)

FACTORIES = {
    "flip": augment.flip,
    "crop_flip": augment.crop_flip,
    "crop_flip_erase": augment.crop_flip_erase,
    "mixup": lambda: augment.mixup(num_classes=3),
    "cutmix": lambda: augment.cutmix(num_classes=3),
    "crop_flip_cutmix": lambda: augment.crop_flip_cutmix(num_classes=3),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def different_images():
    return torch.arange(1.0, COUNT + 1)[:, None, None, None].expand(-1, 2, SIZE, SIZE).contiguous()


@pytest.mark.parametrize("name", FACTORIES)
def test_images_of_a_batch_are_treated_differently(name):
    images = different_images() if "mix" in name else ALIKE
    treated, _ = FACTORIES[name]()(images, LABELS, generator())
    assert treated.shape == images.shape
    changes = (treated - images).flatten(1)
    assert len(changes.unique(dim=0)) > 1
    if name == "flip":
        assert 0.3 < (changes.abs().sum(1) > 0).float().mean() < 0.7


@pytest.mark.parametrize("name", FACTORIES)
def test_draws_come_from_the_generator_alone(name):
    before = torch.random.get_rng_state()
    function = FACTORIES[name]()
    images = different_images() * ALIKE
    first, first_labels = function(images.clone(), LABELS, generator(1))
    again, again_labels = function(images.clone(), LABELS, generator(1))
    other, _ = function(images.clone(), LABELS, generator(2))
    assert torch.equal(first, again)
    assert torch.equal(first_labels, again_labels)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_none_is_nothing():
    assert augment.none() is None


def test_flip_mirrors_left_to_right():
    treated, labels = augment.flip(flip_probability=1.0)(ALIKE, LABELS, generator())
    assert torch.equal(treated, ALIKE.flip(-1))
    assert torch.equal(labels, LABELS)
    assert torch.equal(augment.flip(flip_probability=0.0)(ALIKE, LABELS, generator())[0], ALIKE)


def test_crop_flip_serves_every_crop_of_the_padded_image():
    treated, labels = augment.crop_flip(padding=1)(ALIKE, LABELS, generator())
    padded = F.pad(ALIKE[0], (1, 1, 1, 1))
    crops = {
        (row, column, flipped): (crop.flip(-1) if flipped else crop)
        for row in range(3)
        for column in range(3)
        for flipped in (False, True)
        for crop in [padded[:, row : row + SIZE, column : column + SIZE]]
    }
    seen = [next(key for key, crop in crops.items() if torch.equal(image, crop)) for image in treated]
    assert set(seen) == set(crops)
    assert torch.equal(labels, LABELS)


def test_erase_sets_one_rectangle_of_each_chosen_image_to_zero():
    function = augment.crop_flip_erase(padding=0, flip_probability=0.0, erase_probability=0.5)
    treated, _ = function(ALIKE, LABELS, generator())
    erased = treated == 0
    assert torch.equal(treated[~erased], ALIKE[~erased])
    assert 0.3 < erased.flatten(1).any(1).float().mean() < 0.6
    for mask in erased[:, 0]:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()
    assert torch.equal(erased[:, 0], erased[:, 1])
    assert erased.float().mean() < 0.33 * 0.5


def test_mixup_mixes_images_as_labels():
    images = different_images()
    treated, labels = augment.mixup(num_classes=3, alpha=1.0)(images, LABELS, generator())
    own = F.one_hot(LABELS, 3).float()
    weights = ((treated - images.roll(1, 0)) / (images - images.roll(1, 0)))[:, 0, 0, 0]
    expected = weights[:, None] * own + (1 - weights[:, None]) * own.roll(1, 0)
    torch.testing.assert_close(labels, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(labels.sum(1), torch.ones(COUNT))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_weights_are_beta(alpha):
    images = torch.zeros(20_000, 1, 1, 1)
    images[::2] = 1.0
    labels = torch.arange(20_000) % 2
    weights = augment.mixup(num_classes=2, alpha=alpha)(images, labels, generator())[1][::2, 0]
    assert weights.mean().item() == pytest.approx(0.5, abs=0.02)
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_cutmix_weighs_labels_by_area():
    images = different_images()
    treated, labels = augment.cutmix(num_classes=3)(images, LABELS, generator())
    foreign = treated == images.roll(1, 0)
    assert torch.equal(treated[~foreign], images[~foreign])
    for mask in foreign[:, 0]:
        assert mask.sum() == mask.any(0).sum() * mask.any(1).sum()
    own = F.one_hot(LABELS, 3).float()
    share = foreign.float().mean((1, 2, 3))[:, None]
    torch.testing.assert_close(labels, (1 - share) * own + share * own.roll(1, 0))
    assert 0.1 < share.mean() < 0.5


def test_cutmix_leaves_the_images_it_does_not_choose():
    images = different_images()
    treated, labels = augment.cutmix(num_classes=3, mix_probability=0.5)(images, LABELS, generator())
    mixed = (treated != images).flatten(1).any(1)
    assert 0.35 < mixed.float().mean() < 0.55
    assert torch.equal(labels[~mixed], F.one_hot(LABELS, 3).float()[~mixed])
    assert (labels[mixed].max(1).values < 1).any()
    treated, labels = augment.cutmix(num_classes=3, mix_probability=0.0)(images, LABELS, generator())
    assert torch.equal(treated, images)


def test_crop_flip_cutmix_cuts_from_neighbours_that_were_cropped():
    chance = generator()
    cropped = augment.crop_flip(padding=2)(different_images() * ALIKE, LABELS, chance)
    expected_images, expected_labels = augment.cutmix(num_classes=3, mix_probability=0.5)(*cropped, chance)
    function = augment.crop_flip_cutmix(num_classes=3, padding=2)
    treated, labels = function(different_images() * ALIKE, LABELS, generator())
    assert torch.equal(treated, expected_images)
    assert torch.equal(labels, expected_labels)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: augment.flip(flip_probability=1.5), r"augment\.flip_probability=1\.5"),
        (lambda: augment.crop_flip(padding=-1), r"augment\.padding=-1"),
        (lambda: augment.crop_flip_erase(erase_probability=-0.1), r"augment\.erase_probability"),
        (lambda: augment.crop_flip_erase(erase_area=(0.5, 0.1)), r"augment\.erase_area=\[0\.5, 0\.1\]"),
        (lambda: augment.crop_flip_erase(erase_aspect=(0.0, 1.0)), r"augment\.erase_aspect"),
        (lambda: augment.mixup(num_classes=3, alpha=0.0), r"augment\.alpha=0\.0"),
        (lambda: augment.cutmix(num_classes=3, mix_probability=2), r"augment\.mix_probability=2"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
