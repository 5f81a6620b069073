"""`dltrain predict` on pictures: of any size and kind, by the run's own preparation, unreadable ones named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import run, train
from PIL import Image

import dltrain
from dltrain import data
from dltrain.cli import main

CHECKOUT = Path(__file__).parents[1]
DRAW = "dltrain.report.run_pictures.draw_run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of images that are larger to the model than they are stored."""
    folder = tmp_path_factory.mktemp("predicted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(DRAW, lambda folder: None)
        return str(train("model=mlp", "trainer.epochs=2", "data.standardize=none"))


@pytest.fixture(scope="module")
def images():
    """Test images uint8 (64, 28, 28), light on dark."""
    return data.synthetic(num_train=700, num_test=64).load()["test"].inputs[:, 0]


def lines(capsys):
    """What `--json` printed: nothing else may stand on stdout."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of(predictions):
    """Probabilities of all classes, in their order."""
    return [each["probability"] for each in sorted(predictions["predictions"], key=lambda each: each["index"])]


def test_a_picture_is_prepared_as_the_images_of_the_run_were(trained, images, capsys):
    Image.fromarray(images[3]).save("small.png")
    Image.fromarray(images[3]).resize((140, 140), Image.Resampling.NEAREST).convert("RGB").save(
        "large.webp", lossless=True
    )
    expected = dltrain.load(trained).predict(images[3:4])[0]
    assert main(["predict", trained, "small.png", "large.webp", "--json", "--top", "10"]) == 0
    small, large = lines(capsys)
    assert small["path"] == "small.png"
    assert of(small) == pytest.approx(expected.tolist(), abs=1e-6)
    assert of(large) == pytest.approx(expected.tolist(), abs=0.02)
    ranked = small["predictions"]
    assert [each["probability"] for each in ranked] == sorted((each["probability"] for each in ranked), reverse=True)
    assert ranked[0]["class"] == dltrain.load(trained).class_names[expected.argmax()]


def test_a_folder_is_read_as_a_whole_and_shown_in_a_table(trained, images, capsys):
    Path("shop/new").mkdir(parents=True)
    Image.fromarray(images[0]).save("shop/b.png")
    Image.fromarray(images[1]).resize((33, 61)).save("shop/new/a_very_long_name_of_a_picture_indeed.JPG")
    Image.fromarray(images[2]).convert("RGBA").save("shop/c.webp")
    Path("shop/notes.txt").write_text("no picture")
    assert main(["predict", trained, "shop", "--top", "2"]) == 0
    head, *table = capsys.readouterr().out.splitlines()
    assert head.split() == ["picture", "class", "probability"]
    assert len(table) == 6
    assert [line.split()[0] for line in table[::2]] == [
        "shop/b.png",
        "shop/c.webp",
        "...ery_long_name_of_a_picture_indeed.JPG",
    ]
    assert max(map(len, table)) <= 80
    assert main(["predict", trained, "shop", "--top", "99", "--json"]) == 0
    assert [len(each["predictions"]) for each in lines(capsys)] == [10, 10, 10]


def test_pictures_far_from_square_are_noticed_and_can_be_cropped(trained, images, capsys):
    (image,) = images[5:6]
    side = image.shape[-1]
    Image.fromarray(image).save("square.png")
    Image.fromarray(np.pad(image, ((0, 0), (side // 2, side // 2)))).save("wide.png")
    assert main(["predict", trained, "square.png", "wide.png", "--json"]) == 0
    told = capsys.readouterr()
    square, wide = map(json.loads, told.out.splitlines())
    assert "note: 1 of 2 pictures are far from square and squashed into one: try --fit crop" in told.err
    assert main(["predict", trained, "wide.png", "--fit", "crop", "--json"]) == 0
    told = capsys.readouterr()
    assert "square" not in told.err
    assert of(json.loads(told.out)) == pytest.approx(of(square), abs=1e-6)
    assert of(wide) != pytest.approx(of(square), abs=1e-3)


def test_dark_on_light_pictures_are_noticed_and_inverted(trained, images, capsys):
    Image.fromarray(images[5]).save("usual.png")
    Image.fromarray(255 - images[5]).save("inverted.png")
    assert main(["predict", trained, "usual.png", "inverted.png", "--json"]) == 0
    told = capsys.readouterr()
    usual, inverted = map(json.loads, told.out.splitlines())
    assert told.err == "note: 1 of 2 pictures look inverted beside the training pictures: try --invert\n"
    assert main(["predict", trained, "inverted.png", "--invert", "--json"]) == 0
    told = capsys.readouterr()
    righted = json.loads(told.out)
    assert [of(righted), righted["predictions"][0]["class"]] == [
        pytest.approx(of(usual), abs=1e-6),
        usual["predictions"][0]["class"],
    ]
    assert of(inverted) != pytest.approx(of(usual), abs=0.01)
    assert told.err == ""
    assert main(["predict", trained, "usual.png", "--invert"]) == 0
    assert "try without --invert" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_the_rest_predicted(trained, images, capsys):
    Image.fromarray(images[0]).save("good.png")
    Path("bad.png").write_bytes(Path("good.png").read_bytes()[:60])
    Path("empty").mkdir()
    assert main(["predict", trained, "bad.png", "good.png", "none.png", "empty", "--json"]) == 66
    told = capsys.readouterr()
    assert [json.loads(line)["path"] for line in told.out.splitlines()] == ["good.png"]
    assert "note" not in told.err
    assert {line.split(": ")[1] for line in told.err.splitlines()} == {"bad.png", "none.png", "empty"}
    assert "none.png: no such file" in told.err


def test_a_reader_that_has_seen_enough_ends_it(trained, images):
    for place in range(300):  # more than are decoded at a time
        Image.fromarray(images[place % 64]).save(f"{place:03}.png")
    command = f"{sys.executable} -m dltrain predict {trained} . --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env={"PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True)
    assert json.loads(done.stdout)["path"] == "000.png"
    assert (done.returncode, done.stderr) == (0, "")


def test_an_older_run_knows_the_size_of_the_model_alone(trained, images, monkeypatch, capsys):
    run = dltrain.load(trained)
    run.preparation.stored_size = run.preparation.level = None
    monkeypatch.setattr("dltrain.trained.load", lambda *_, **__: run)
    Image.fromarray(images[0]).resize((32, 32)).save("picture.png")
    assert main(["predict", trained, "picture.png", "--json", "--top", "10"]) == 0
    pixels = torch.from_numpy(np.asarray(Image.open("picture.png")).copy())[None]
    assert of(*lines(capsys)) == pytest.approx(run.predict(pixels)[0].tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([], 2, "needs pictures"),
        (["a.png", "--top", "0"], 2, "--top 0"),
        (["a.png", "--prompt", "a"], 78, "has learned data=synthetic"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(trained, words, code, told, capsys):
    assert main(["predict", trained, *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_run_that_learned_no_pictures_names_none(monkeypatch, capsys):
    monkeypatch.setattr(DRAW, lambda folder: None)
    folder = run("experiment=airfoil", "trainer.epochs=1", "device=cpu")
    assert main(["predict", str(folder), "a.png"]) == 78
    assert "use dltrain.load there" in capsys.readouterr().err
    assert main(["predict"]) == 2
