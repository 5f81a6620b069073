"""Folders of pictures: what is found, decoded, refused and kept, and the notes' eleven classes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import rows, run, summary
from PIL import Image

import dltrain
from dltrain.build import build
from dltrain.cli import main
from dltrain.config.compose import compose
from dltrain.data import image_folder, pictures
from dltrain.data.dataset import DataError
from dltrain.data.pictures import Shape, UnreadableError, decode
from dltrain.run import looks


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dltrain" / "pictures"


def picture(path: Path, *, colour=(200, 30, 60), size=(40, 30), **keywords) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path, **keywords)
    return path


def folder(root: Path, *, classes=2, parts=("train", "val", "test"), each=4, size=(40, 30)) -> Path:
    """Pictures of noise around a colour of their class's own."""
    generator = np.random.default_rng(0)
    for part in parts:
        for label in range(classes):
            colour = np.random.default_rng(label).integers(40, 216, 3)
            for number in range(each):
                path = root / part / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = colour + generator.integers(-40, 40, (*size[::-1], 3))
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".webp"])
def test_formats_and_colours(tmp_path, suffix):
    shape = Shape(3, 16, "squash")
    found = decode(picture(tmp_path / f"colour{suffix}"), shape)
    assert (found.shape, found.dtype) == ((3, 16, 16), np.uint8)
    np.testing.assert_allclose(found.mean((1, 2)), (200, 30, 60), atol=4)
    if suffix != ".webp":
        grey = decode(picture(tmp_path / f"grey{suffix}", colour=90), shape)
        np.testing.assert_allclose(grey, 90, atol=2)
    np.testing.assert_allclose(
        decode(tmp_path / f"colour{suffix}", Shape(1, 16, "squash")), 0.299 * 200 + 0.587 * 30 + 0.114 * 60, atol=4
    )


def test_transparent_is_white_sixteen_bits_are_eight_and_a_turned_picture_is_upright(tmp_path):
    shape = Shape(3, 8, "squash")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "transparent.png")
    assert (decode(tmp_path / "transparent.png", shape) == 255).all()
    Image.fromarray(np.full((8, 8), 128 * 256 + 7, np.uint16)).save(tmp_path / "deep.png")
    assert (decode(tmp_path / "deep.png", shape) == 128).all()
    halves = np.zeros((8, 8, 3), np.uint8)
    halves[:4] = 255
    turned = Image.fromarray(halves)
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    assert decode(tmp_path / "turned.png", shape)[0].mean(1).tolist() == [0] * 4 + [255] * 4


def test_a_picture_is_squashed_or_cropped(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", Shape(3, 10, "crop")) == 255).all()
    assert 0.25 < (decode(tmp_path / "wide.png", Shape(3, 10, "squash")) > 127).mean() < 0.45


def test_what_is_no_picture_says_why(tmp_path, monkeypatch):
    shape = Shape(3, 8, "squash")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(UnreadableError, match="cannot identify image file"):
        decode(tmp_path / "text.png", shape)
    whole = picture(tmp_path / "whole.jpg", size=(200, 200)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableError, match="truncated"):
        decode(tmp_path / "cut.jpg", shape)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 1_000)
    with pytest.raises(UnreadableError, match="200x200 pixels are too many"):
        decode(tmp_path / "whole.jpg", shape)


def test_parts_classes_and_numbers(tmp_path):
    data = image_folder(root=str(folder(tmp_path / "food", classes=11)), image_size=16)
    facts, parts = data.facts(), data.load()
    assert facts.class_names == tuple(map(str, range(11))), "by size: 2 before 10"
    assert facts.num_examples == {"train": 44, "val": 44, "test": 44}
    for part, examples in parts.items():
        assert examples.inputs.shape == (44, 3, 16, 16)
        assert examples.targets.tolist() == data.labels(part).tolist()
        for label in range(11):
            colour = np.random.default_rng(label).integers(40, 216, 3)
            mean = examples.inputs[np.flatnonzero(examples.targets == label)].mean((0, 2, 3))
            np.testing.assert_allclose(mean, colour, atol=6)


def test_without_parts_all_train_and_a_prefix_can_be_the_class(tmp_path):
    for label in ("3", "12"):
        for number in range(3):
            picture(tmp_path / "flat" / f"{label}_{number}.png")
    facts = image_folder(root=str(tmp_path / "flat"), image_size=16, class_from="prefix", channels=1).facts()
    assert (facts.class_names, facts.num_examples, facts.in_channels) == (("3", "12"), {"train": 6}, 1)
    with pytest.raises(DataError, match=r"in no folder of a class; see data\.class_from=prefix"):
        image_folder(root=str(tmp_path / "flat"), image_size=16).facts()


def test_pictures_are_decoded_once_and_again_when_a_file_changes(tmp_path, cache, monkeypatch):
    root = folder(tmp_path / "few", parts=("train",))
    first = image_folder(root=str(root), image_size=16)
    before = first.fingerprint()
    expected = np.array(first.load()["train"].inputs)
    assert len(list(cache.glob("*.npy"))) == 1
    again = image_folder(root=str(root), image_size=16)
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode", None)  # would raise
        np.testing.assert_array_equal(again.load()["train"].inputs, expected)
    assert again.fingerprint() == before
    picture(root / "train" / "0" / "0.png", colour=(0, 0, 0))
    changed = image_folder(root=str(root), image_size=16)
    assert changed.load()["train"].inputs[:1].max() == 0
    assert changed.fingerprint() != before


def test_the_fingerprint_is_of_what_the_pictures_show(tmp_path, cache):
    root = folder(tmp_path / "few")

    def fingerprint(place=root, **how):
        return image_folder(root=str(place), image_size=16, **how).fingerprint()

    before = fingerprint()
    kept = [path for path in cache.iterdir() if path.suffix == ".sha256"]
    assert [path.read_text() for path in kept] == [before]
    path = root / "val" / "1" / "3.png"
    path.touch()
    assert fingerprint() == before, "touched"
    assert fingerprint(shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)) == before, "copied"
    shutil.rmtree(cache)
    assert fingerprint(cache=False) == before, "decoded without being kept"

    picture(path, compress_level=0)
    status, first = path.stat(), fingerprint()
    picture(path, colour=(200, 30, 61), compress_level=0)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert fingerprint() not in (first, before), "changed, its time set back"
    before = fingerprint()
    (root / "test" / "1" / "0.png").rename(root / "test" / "0" / "9.png")
    assert fingerprint() != before, "in another class"


def test_eval_knows_a_copy_of_the_pictures(tmp_path, capsys):
    root = folder(tmp_path / "few")
    words = ["data=image_folder", f"data.root={root}", "data.image_size=28", "device=cpu", "data.batch_size=4"]
    made = run(*words, "model=mlp", "trainer.epochs=1")
    shutil.move(root, tmp_path / "away")
    shutil.copytree(tmp_path / "away", root, copy_function=shutil.copyfile)
    capsys.readouterr()
    assert main(["eval", str(made)]) == 0
    assert "these are not the data" not in capsys.readouterr().out
    assert json.loads((made / "evaluation-test.json").read_text())["data"]["same"]
    assert looks.count(made) == {"training": 1, "after": 1}


def test_undecoded_pictures_are_the_same_ones(tmp_path, cache):
    root = str(folder(tmp_path / "few"))
    kept, read = (image_folder(root=root, image_size=16, cache=cached).load() for cached in (True, False))
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(kept[part].inputs, read[part].inputs[:])
        np.testing.assert_array_equal(read[part].inputs[np.array([3, 1])], kept[part].inputs[[3, 1]])


def test_pictures_that_cannot_be_read_are_named_or_skipped(tmp_path):
    root = folder(tmp_path / "few", parts=("train", "test"))
    bad = [root / "train" / "0" / "2.png", root / "test" / "1" / "0.png"]
    for path in bad:
        path.write_text("no")
    with pytest.raises(DataError, match=f"2 of 16 pictures cannot be read: {bad[0]}: .*{bad[1]}: .*data.corrupt=skip"):
        image_folder(root=str(root), image_size=16).load()
    data = image_folder(root=str(root), image_size=16, corrupt="skip")
    assert data.facts().num_examples == {"train": 7, "test": 7}
    assert data.facts().notes[0].startswith(f"2 pictures that cannot be read are left out: {bad[0]}: ")
    parts = data.load()
    assert parts["train"].targets.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert min(parts["train"].inputs[:].mean((1, 2, 3))) > 20, "no black picture is left"
    moved = image_folder(root=str(root.rename(tmp_path / "moved")), image_size=16, corrupt="skip")
    assert moved.facts().num_examples == {"train": 7, "test": 7}, "in the cache by another root"
    assert moved.fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: shutil.rmtree(root / "train"), "there is val/ and no train/"),
        (lambda root: shutil.rmtree(root / "train" / "1"), "one class, 0; there must be two or more"),
        (lambda root: (root / "val" / "1").rename(root / "val" / "7"), "class 7 of val has no pictures to train on"),
        (lambda root: [path.unlink() for path in (root / "test").rglob("*.png")], "no pictures"),
        (lambda root: (root / "train" / "0" / "link.png").symlink_to("/etc/passwd"), "link.png: a link"),
        (lambda root: (root / "train" / "more").symlink_to(root / "val"), "more: a link"),
    ],
    ids=["gone", "no train", "one class", "foreign class", "empty", "linked file", "linked folder"],
)
def test_a_folder_that_will_not_do_is_refused(tmp_path, spoil, message):
    root = folder(tmp_path / "few")
    spoil(root)
    with pytest.raises(DataError, match=message):
        image_folder(root=str(root), image_size=16).facts()


def test_a_validation_part_of_its_own_is_used_and_not_drawn_again(tmp_path, capsys):
    root = folder(tmp_path / "few")
    words = ["data=image_folder", f"data.root={root}", "data.image_size=28", "device=cpu", "data.batch_size=4"]
    made = build(compose(words).config)
    assert {split: serving.num_examples for split, serving in made.batches.items()} == dict.fromkeys(made.batches, 8)
    run(*words, "data.val_size=2", expected=78)
    assert "data.val_size=2: these data have a validation part of their own" in capsys.readouterr().err


@pytest.mark.parametrize("how", [[], ["data.resident_limit=0", "data.workers=0", "data.cache=false"]])
def test_the_notes_eleven_classes(tmp_path, how):
    root = folder(tmp_path / "food", classes=11, each=3)
    words = ["experiment=food11", f"data.root={root}", "data.image_size=32", "trainer=smoke", "device=cpu"]
    made = run(*words, "data.batch_size=8", *how)
    assert summary(made)["parameters"] == 11_186_955
    assert {row["split"] for row in rows(made)} == {"train", "val", "test"}
    probabilities = dltrain.load(made).predict(np.zeros((2, 3, 50, 50), np.uint8))
    assert probabilities.shape == (2, 11)
    assert ("streamed" in (made / "train.log").read_text()) == bool(how)
