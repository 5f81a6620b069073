"""`dltrain export`: files that do what the run does, all models, sabotage that the gate refuses, and the card."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DEEPEST, networks, run, summary, train
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

import dltrain
from dltrain import models
from dltrain.cli import main
from dltrain.components import make
from dltrain.config.compose import compose
from dltrain.data.preparation import Pixels
from dltrain.export import formats, gate, graph
from dltrain.export.card import escaped
from dltrain.export.formats import FORMATS
from dltrain.export.gate import ParityError, compare
from dltrain.trained import Trained

DOCS = Path(__file__).parents[1] / "docs"
DRAW = "dltrain.report.run_pictures.draw_run"
FILES = {"safetensors": "model.safetensors", "torch_export": "model.pt2", "onnx": "model.onnx"}
HOSTILE = ("a|b`c` **d** [e](http://f.g)", "<h1>i_j_k</h1>")
DEEP = ("densenet", "densenet121", "densenet169", "resnet34", "resnet50", *DEEPEST)
FACTS = {"in_channels": 1, "image_size": 32, "num_classes": 10, "input_shape": [1, 32, 32], "num_outputs": 10}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One of grey images that are resized, with averaged and frozen weights; one of colour and odd class names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("exported"))
        patch.setattr(DRAW, lambda folder: None)
        draw_pictures(Path("colours"))
        words = ("trainer.epochs=2", "trainer.ema=0.5", "init.freeze=[conv1]", "optim.lr=0.01", "trainer.keep=3")
        train("model=lenet", "model.activation=relu", *words, "trainer.checkpoint_every='1 epochs'", name="grey")
        words = ("data.root=colours", "data.image_size=28", "data.val_size=16", "device=cpu", "optim.lr=0.01")
        run(
            "data=image_folder",
            "model=small_lenet",
            *words,
            "trainer.epochs=2",
            "data.batch_size=16",
            "data.cache=false",
            name="colour",
        )
        return folder


def draw_pictures(root: Path) -> None:
    generator = np.random.default_rng(0)
    for label, name in enumerate(HOSTILE):
        (root / name.replace("/", "\u2215")).mkdir(parents=True)
        for number in range(32):
            pixels = generator.integers(0, 100, (28, 28, 3)) + np.eye(3, dtype=int)[2 * label] * 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / name.replace("/", "\u2215") / f"{number}.png")


@pytest.fixture
def folders(runs, monkeypatch):
    """The runs with nothing exported yet."""
    for old in Path(runs).glob("outputs/runs/*/exports"):
        shutil.rmtree(old)
    monkeypatch.chdir(runs)
    return {path.name: path for path in Path("outputs/runs").iterdir()}


def refused(capsys, *words: str, code: int = 70) -> str:
    """The one line with which an export is refused."""
    capsys.readouterr()
    assert main(["export", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def untrained(name: str, *words: str) -> Trained:
    """A network with its first weights, for images 28 pixels wide that become 32."""
    torch.manual_seed(0)
    config = compose([f"model={name}", "data=synthetic", *words]).config
    pixels = Pixels(32, torch.full((1, 1, 1), 70.0), torch.full((1, 1, 1), 90.0))
    model = make(models, config.model, **FACTS).eval()
    names = [str(number) for number in range(10)]
    return Trained(model, config, [], names, pixels, FACTS, {"step": 0, "averaged": False})


def passes(trained: Trained, name: str, path: Path, *, count: int = 6) -> gate.Parity:
    """What the gate finds of a file of images of noise; raises where it refuses."""
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path.write_bytes(FORMATS[name].make(trained, images))
    found = FORMATS[name].runner(path)(images.numpy())
    expected = trained.outputs(images).numpy()
    return compare(expected, found, tolerance=FORMATS[name].tolerance, class_names=trained.class_names)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("name", ["grey", "colour"])
def test_a_file_does_what_the_run_does_and_its_card_says_how(folders, kind, name, capsys, monkeypatch):
    exports = folders[name] / "exports"
    assert main(["export", name, "--format", kind]) == 0
    head, line, *wrote = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["format", "file", "bytes"]
    assert line.split()[:2] == [kind, FILES[kind]]
    assert wrote == [f"wrote  {exports / file}" for file in (FILES[kind], "exports.json", "README.md")]
    assert {path.name for path in exports.iterdir()} == {FILES[kind], "exports.json", "README.md"}
    (entry,) = json.loads((exports / "exports.json").read_text())["exports"]
    assert entry["parity"]["examples"] == {"grey": 64, "colour": 16}[name]
    assert entry["parity"]["largest"] <= entry["parity"]["allowed"] < 0.01

    (program,) = re.findall(r"^```python\n(.*?)^```", (exports / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert ("dltrain" in program) == (kind == "safetensors")
    check_size(program)
    monkeypatch.chdir(exports)
    picture = np.random.default_rng(1).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(picture).save("photo.png")
    exec(program, {})
    trained = dltrain.load("..")
    side, mode = (28, {"grey": "L", "colour": "RGB"}[name])
    seen = np.array(Image.open("photo.png").convert(mode).resize((side, side), Image.Resampling.BILINEAR))
    seen = seen[None, None] if mode == "L" else seen.transpose(2, 0, 1)[None]
    images = np.zeros((2, 1 if mode == "L" else 3, side, side), np.uint8) if kind == "torch_export" else seen
    expected = [trained.class_names[place] for place in trained.predict(images).argmax(1)]
    assert capsys.readouterr().out.strip() == str(expected if kind == "torch_export" else expected[0])


def check_size(program: str) -> None:
    lines = program.splitlines()
    assert len(lines) <= 5
    assert max(map(len, lines)) <= 100


def test_the_preprocessing_inside_is_standardization_and_torchs_antialiased_resize(folders):
    trained = dltrain.load("grey")
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    standardized = (images.double() - trained.preparation.mean) / trained.preparation.deviation
    resized = interpolate(standardized, size=(32, 32), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        expected = trained.model(resized.float())
        found = graph.graph_of(trained, 28, 28)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, trained.outputs(images))


def test_the_weights_are_those_that_were_asked_for(folders, capsys):
    trained = dltrain.load("grey")
    steps = sorted(int(path.name[5:]) for path in (folders["grey"] / "checkpoints").glob("step-*"))
    for which in ("best", "last", str(steps[0])):
        assert main(["export", "grey", "--checkpoint", which]) == 0
    exports = folders["grey"] / "exports"
    files = ["model.safetensors", "model-last.safetensors", f"model-{steps[0]}.safetensors"]
    listed = json.loads((exports / "exports.json").read_text())["exports"]
    assert [each["file"] for each in listed] == files
    wanted = [trained.checkpoint["step"], steps[-1], steps[0]]
    assert [each["checkpoint"]["step"] for each in listed] == wanted
    for file, step in zip(files, wanted, strict=True):
        restored = dltrain.load(exports / file)
        own = dltrain.load("grey", checkpoint=str(step))
        assert restored.checkpoint == {"step": step, "averaged": True}
        assert restored.class_names == own.class_names
        assert all(torch.equal(a, b) for a, b in zip(restored.model.parameters(), own.model.parameters(), strict=True))
    assert "step 7 that verifies" in refused(capsys, "grey", "--checkpoint", "7", code=66)
    (exports / files[1]).unlink()
    assert main(["export", "grey"]) == 0  # anew, and what is gone is told of no more
    listed = json.loads((exports / "exports.json").read_text())["exports"]
    assert [each["file"] for each in listed] == [files[2], files[0]]
    assert files[1] not in (exports / "README.md").read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in DEEPEST else []) for name in networks()]
)
def test_every_network_becomes_a_file(name, tmp_path):
    words = ["model.arch=squeezenet1_1"] if name == "torchvision" else []
    kind = "safetensors" if name in DEEP else "torch_export"
    assert passes(untrained(name, *words), kind, tmp_path / "a").largest == 0


OF_ONNX = {
    "lenet": ("model.norm=scratch", "model.pool=max"),
    "mlp": ("model.norm=layer", "model.dropout=0.5", "model.dropout_form=notes"),
    "gru": ("model.dropout=0.5",),
    "sequential": (
        "model.layers=[{conv: {channels: 4, kernel: 3, padding_mode: reflect, padding: 1}}, {conv: {channels: 8, "
        "kernel: 3, groups: 2, dilation: 2}}, {norm: batch}, silu, centered, {transition: {}}, flatten, "
        "{dropout: 0.5}, {my_linear: 8}, {linear: outputs}]",
    ),
}


@pytest.mark.parametrize("name", OF_ONNX)
def test_layers_of_all_kinds_become_onnx(name, tmp_path):
    passes(untrained(name, *OF_ONNX[name]), "onnx", tmp_path / "a")


@pytest.mark.long
@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("kind", FILES)
def test_every_network_becomes_every_file(name, kind, tmp_path):
    passes(untrained(name), kind, tmp_path / "a")


def with_another_mean(made: nn.Module) -> nn.Module:
    made.mean = made.mean + 3
    return made


def with_norms_in_training(made: nn.Module) -> nn.Module:
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean = module.running_var = None  # so those of the batch, always
    return made


def with_channels_swapped(made: nn.Module) -> nn.Module:
    return nn.Sequential(SwapChannels(), made)


class SwapChannels(nn.Module):
    def forward(self, images):
        return images.flip(1)


@pytest.mark.parametrize(
    ("sabotage", "kind"),
    [
        (with_another_mean, "torch_export"),
        (with_norms_in_training, "torch_export"),
        (with_norms_in_training, "onnx"),
        (with_channels_swapped, "onnx"),
    ],
)
def test_a_sabotaged_graph_is_refused_and_the_earlier_file_stays(folders, kind, sabotage, capsys, monkeypatch):
    exports = folders["colour"] / "exports"
    exports.mkdir()
    (exports / FILES[kind]).write_text("an earlier one")
    honest = graph.graph_of
    monkeypatch.setattr(graph, "graph_of", lambda *given: Renamed(sabotage(honest(*given))))
    line = refused(capsys, "colour", "--format", kind)
    assert f"the {kind} export is refused and not written: an output of example " in line
    assert re.search(r"differs by [\d.e-]+, and 1e-0[56] of the largest, [\d.e-]+, is allowed; \d+ of 16", line)
    assert [path.read_text() for path in exports.iterdir()] == ["an earlier one"]


class Renamed(nn.Module):
    """Whatever the module, with `images` as the argument's name."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return self.module(images)


def test_wrong_metadata_of_a_safetensors_file_is_refused_too(folders, capsys, monkeypatch):
    honest = formats.about

    def about(trained):
        told = honest(trained)
        return {**told, "preprocessing": {**told["preprocessing"], "mean": [[[40.0]]]}}

    monkeypatch.setattr(formats, "about", about)
    assert "an output of example" in refused(capsys, "grey")
    assert not (folders["grey"] / "exports").exists()


def flipped(content: bytes, weights: torch.Tensor) -> bytes:
    """The content with the highest bit of the exponent of a weight the other way round."""
    raw = weights.detach().numpy().tobytes()
    assert content.count(raw) == 1
    place = content.index(raw) + 3
    return content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("harm", ["truncated", "flipped"])
def test_a_damaged_file_is_refused(folders, kind, harm, capsys, monkeypatch):
    honest = FORMATS[kind]

    def damaged(trained, example):
        content = honest.make(trained, example)
        return content[: len(content) // 2] if harm == "truncated" else flipped(content, trained.model.output.weight)

    monkeypatch.setitem(FORMATS, kind, replace(honest, make=damaged))
    line = refused(capsys, "grey", "--format", kind)
    if harm == "truncated" or kind == "safetensors":
        assert "refused and not written: the file cannot be loaded and run: " in line
        assert kind != "safetensors" or harm == "truncated" or "SHA-256" in line
    else:
        assert re.search("differs by|cannot be loaded|not finite", line)
    assert not (folders["grey"] / "exports").exists()


def test_outputs_that_are_not_finite_are_refused(folders, capsys, monkeypatch):
    trained = dltrain.load("grey")
    trained.model.output.bias.data[3] = torch.nan
    monkeypatch.setattr("dltrain.trained.load", lambda *_, **__: trained)
    assert "the run's own outputs are not finite, first of example 0" in refused(capsys, "grey")


def test_the_gate_by_hand():
    expected = np.array([[1.0, 2.0, -4.0], [1.0, 1.00001, 0.0]])
    names = ["a", "b", "c"]
    same = compare(expected, expected, tolerance=0, class_names=names)
    assert (same.examples, same.largest, same.scale) == (2, 0, 4)
    found = expected.copy()
    found[0, 1] += 0.0004
    assert compare(found, expected, tolerance=1e-4, class_names=names).largest == pytest.approx(4e-4)
    for outputs, tolerance, why in (
        (found, 0.99e-4, r"example 0 differs by 0.0004, and 9.9e-05 of the largest, 4, is allowed; 0 of 2"),
        (expected[:, :2], 1, r"its outputs are \(2, 2\), and the run's \(2, 3\)"),
        (np.array([[1.0, 2.0, -4.0], [1.0, np.inf, 0.0]]), 1, r"not finite for 1 of 2, first example 1"),
        (expected - [[0, 0, 0], [0, 2e-5, 0]], 1e-4, r"1 of 2 .* the first one 1, from 'b' to 'a', .* 1e-05 apart"),
    ):
        with pytest.raises(ParityError, match=why):
            compare(expected, outputs, tolerance=tolerance, class_names=names)
    numbers = np.array([[1.0, 1.00001]])
    assert compare(numbers, numbers[:, ::-1], tolerance=1e-4, class_names=[]).largest > 0  # which are no labels
    assert gate.parts(1) == [1]
    assert gate.parts(65) == [1, 64]
    assert sum(gate.parts(512)) == 512


def test_the_card_tells_what_was_measured_and_shows_names_as_they_are(folders):
    assert main(["eval", "colour", "--split", "val"]) == 0
    assert main(["export", "colour", "--tolerance", "0.001"]) == 0
    text = (folders["colour"] / "exports/README.md").read_text()
    trained = dltrain.load("colour")
    for place, name in enumerate(trained.class_names):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {place} |")]
        shown = re.sub(r"\\(.)", r"\1", line)
        assert shown == f"| {place} | {name} |"
        assert not re.search(r"(?<!\\)[`*\[\]<>_]", line)
    assert escaped("a\n# b\x1b[1m") == r"a\?\# b\?\[1m"
    assert "0.001" in str(json.loads((folders["colour"] / "exports/exports.json").read_text())["exports"][0]["parity"])
    told = json.loads((folders["colour"] / "evaluation-val.json").read_text())["metrics"]
    assert f"| val | balanced accuracy | {told['balanced_accuracy']:.4f} | 16 | `evaluation-val.json` |" in text
    assert f"| test | loss | {summary(folders['grey'])['test']['loss']:.4f}" not in text
    assert "minus " in text
    assert "resized" not in text
    fingerprint = json.loads((folders["colour"] / "environment.json").read_text())["data_fingerprint"]
    assert fingerprint in text
    assert main(["export", "grey"]) == 0
    text = (folders["grey"] / "exports/README.md").read_text()
    best = summary(folders["grey"])["test"]
    assert f"| test | loss | {best['loss']:.4f} | 64 | `evaluation-test.json` |" in text
    assert "did not read all" not in text
    assert "then resized to 32x32 pixels, bilinear and antialiased" in text
    assert "looked at once" in text


def test_the_card_tells_what_the_files_were_compared_on(folders):
    shutil.copytree("colours", "others")
    next(Path("others").rglob("0.png")).unlink()
    card = folders["colour"] / "exports/README.md"
    own = json.loads((folders["colour"] / "environment.json").read_text())["data_fingerprint"]
    assert main(["export", "colour", "--data", "data.root=others"]) == 0
    text = card.read_text()
    assert "of val of other data |" in text
    assert "the run's data where the table names no other" in text
    assert (
        f"no file was compared on its examples as they were in training. SHA-256 of the decoded data then: `{own}`"
        in text
    )
    assert main(["export", "colour", "--format", "torch_export"]) == 0
    text = card.read_text()
    assert text.count("of val of other data |") == 1
    assert f"48 train, 16 val examples. SHA-256 of the decoded data: `{own}`" in text


@pytest.mark.parametrize(
    "words",
    [
        (
            "data=linear_synthetic",
            "model=mlp",
            "loss=mse",
            "data.num_train=200",
            "data.num_test=50",
            "data.val_size=train",
            "data.batch_size=20",
            "trainer.limit_test_batches=1",
        ),
        ("data=markov_text", "model=rnn", "data.num_train=2000", "data.num_test=500", "data.length=16"),
    ],
    ids=["vectors", "texts"],
)
def test_what_are_no_images_become_safetensors_alone(words, capsys, monkeypatch):
    monkeypatch.setattr(DRAW, lambda folder: None)
    folder = run(*words, "trainer.epochs=1", "trainer.limit_train_batches=2", "device=cpu")
    assert main(["export", "run"]) == 0
    own, restored = dltrain.load("run"), dltrain.load(folder / "exports/model.safetensors")
    shape = (3, *own.facts["input_shape"])
    inputs = np.zeros(shape, np.int64) if own.class_names else np.ones(shape, np.float32)
    assert torch.equal(own.predict(inputs), restored.predict(inputs))
    (program,) = re.findall(r"^```python\n(.*?)^```", (folder / "exports/README.md").read_text(), re.M | re.S)
    monkeypatch.chdir(folder / "exports")
    check_size(program)
    exec(program, {})
    monkeypatch.chdir(folder.parents[2])
    text = (folder / "exports/README.md").read_text()
    assert ("every label of it" in text) == bool(own.class_names)
    assert "did not read all examples: `trainer.limit_train_batches=2`" in text
    if not own.class_names:
        assert re.search(r"\| test \| loss \| [\d.]+ \| 20 \|", text)
        assert "val examples" not in text
        assert "validated on its own training examples" in text
    for kind in ("onnx", "torch_export"):
        assert f"--format {kind} is for images" in refused(capsys, "run", "--format", kind, code=78)


def test_what_cannot_be_is_refused_in_one_line(folders, capsys, monkeypatch):
    assert "takes one run" in refused(capsys, code=2)
    assert "--tolerance 1" in refused(capsys, "grey", "--tolerance", "1", code=2)
    assert "--checkpoint first" in refused(capsys, "grey", "--checkpoint", "first", code=2)
    assert "no run 'none'" in refused(capsys, "none", code=78)
    words = ("--data", "data=linear_synthetic", "model.x=1")
    assert "data=NAME and data.KEY=VALUE alone" in refused(capsys, "grey", *words, code=78)
    assert "has learned other classes" in refused(capsys, "grey", "--data", "data.classes=[0,1,2,3]", code=78)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert "pip install onnx" in refused(capsys, "grey", "--format", "onnx", code=78)
    assert not (folders["grey"] / "exports").exists()


def test_a_safetensors_file_that_was_changed_is_not_loaded(folders):
    assert main(["export", "grey"]) == 0
    path = folders["grey"] / "exports/model.safetensors"
    content = path.read_bytes()
    for changed, why in (
        (content.replace(b"trouser", b"blouses"), "SHA-256"),
        (content[:-1] + bytes([content[-1] ^ 1]), "SHA-256"),
        (content[:-1], "cannot|no safetensors file"),
        (content.replace(b'"dltrain_export":"1"', b'"dltrain_export":"2"'), "format version 1"),
    ):
        assert changed != content
        path.write_bytes(changed)
        with pytest.raises(dltrain.run.folder.RunError, match=why):
            dltrain.load(path)


def test_the_commands_of_its_page_run(folders):
    page = (DOCS / "export.md").read_text()
    lines = [line.partition("  #")[0] for line in page.splitlines() if line.startswith("dltrain ")]
    assert len(lines) >= 4
    for line in lines:
        assert main(shlex.split(line.replace("first", "grey"))[1:]) == 0
