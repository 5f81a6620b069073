"""report.html: what it says is what the record says, it needs nothing but itself, and no run fails for want of it."""

import base64
import hashlib
import io
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import rows, run, summary, train
from PIL import Image
from test_sweep_summary import write_sweep

from dltrain.cli import main
from dltrain.config import stored
from dltrain.config.compose import compose
from dltrain.report.chart import Line, chart, thinned
from dltrain.report.curves import draw_curves
from dltrain.report.filters import png
from dltrain.report.run_facts import wilson
from dltrain.report.run_page import draw_page
from dltrain.run.console import Console, number
from dltrain.run.first_layer import first_layer
from dltrain.run.lock import Lock
from dltrain.verbs._sweep_page import write_page
from dltrain.verbs._sweep_table import sum_up

DRAW = "dltrain.report.run_pictures.draw_run"
HOSTILE = "</script><img src=x onerror=alert(1)>"
MOST_BYTES = 2_000_000


class Page(HTMLParser):
    """What a page holds: its numbers by where they are from, the texts of its tables by caption, its tags."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.numbers: dict[str, tuple[str, str]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text, self.caption, self.value = "", "", None
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag in ("caption", "th", "td", "data"):
            self.text = "" if tag != "data" else self.text
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])
        if tag == "data":
            self.value, self.start = dict(attributes), len(self.text)

    def handle_data(self, text):
        self.text += text

    def handle_endtag(self, tag):
        if tag == "caption":
            self.caption = self.text.strip()
        if tag in ("th", "td"):
            self.rows[-1].append(" ".join(self.text.split()))
        if tag == "data":
            self.numbers[self.value["data-from"]] = (self.value["value"], self.text[self.start :])
        if tag == "table":
            self.tables[self.caption.partition(";")[0].partition(":")[0]] = self.rows

    def has(self, text: str) -> bool:
        return text in re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", self.source))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a convolutional network with an evaluation of its test part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("reported"))
        patch.setattr(DRAW, lambda folder: None)  # which takes longer than all else here
        folder = train("model=small_lenet", "trainer.epochs=2", "optim.lr=0.01", "data.image_size=28")
        assert main(["eval", str(folder)]) == 0
        return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(DRAW, lambda folder: [])


@pytest.fixture
def first(trained):
    """A copy of that run of the test's own, as the name `first`."""
    return Path(shutil.copytree(trained, Path("outputs/runs/first").resolve()))


def drawn(folder: Path) -> Page:
    return Page(draw_page(folder))


def evaluation(folder: Path) -> dict:
    return json.loads((folder / "evaluation-test.json").read_text())


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_every_number_is_that_of_the_record(first):
    page, result, found = drawn(first), summary(first), evaluation(first)
    known = {
        f"summary:{split}.{name}": result[split][name]
        for split in ("train", "val", "test")
        for name in ("loss", "accuracy")
    }
    known |= {f"evaluation:metrics.{name}": value for name, value in found["metrics"].items()}
    assert {key: float(value) for key, (value, _) in page.numbers.items()} == known
    assert all(text == number(known[key]) for key, (_, text) in page.numbers.items())
    matrix = page.tables["Counts"]
    names = [each["name"] for each in found["classes"]]
    assert [row[0] for row in matrix[1:]] == matrix[0][1:] == names
    assert [[int(count) for count in row[1:]] for row in matrix[1:]] == found["confusion"]
    classes = page.tables["Precision, recall and F1 of each class"][1:]
    for row, each in zip(classes, found["classes"], strict=True):
        assert row[:5] == [
            each["name"],
            *(number(each[key]) for key in ("precision", "recall", "f1")),
            str(each["support"]),
        ]
    for row, end in zip(page.tables["Ends of epochs"][1:], rows(first, "val"), strict=True):
        assert row[1] == str(end["step"])
        assert {number(end["loss"]), number(end["accuracy"])} < set(row)
    low, high = wilson(result["test"]["accuracy"], 64)
    assert page.has(f"95 % interval {number(low)} to {number(high)}")


def test_the_interval_is_wilsons():
    assert wilson(0.1, 50) == pytest.approx((0.04348, 0.21360), abs=1e-5)  # Newcombe 1998's method 3, computed by hand
    assert wilson(1.0, 10)[0] == pytest.approx(0.72247, abs=1e-5)
    low, high = wilson(0.3, 40)
    for end in (low, high):  # where the score test is at its limit
        assert abs(0.3 - end) == pytest.approx(1.959964 * (end * (1 - end) / 40) ** 0.5, rel=1e-6)


def test_settings_show_what_differs_and_the_command_makes_the_same_run(first):
    page = drawn(first)
    differing = page.tables["What differs from the defaults of the choices"][1:]
    assert ["optim.lr", "0.01", "0.001"] in differing
    assert ["data.num_train", "700", "10000"] in differing
    every = {row[0].removesuffix(" ●"): row[1:] for row in page.tables["Settings"][1:]}
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert every["data.image_size"] == ["28", "96"]
    assert every["optim.eps"] == [json.dumps(config["optim"]["eps"])] * 2
    assert len(differing) + 1 == sum(mine != usual for mine, usual in every.values())  # and name
    (command,) = re.findall(r"<code>(dltrain .*?)</code>", page.source)
    again = compose(shlex.split(command)[1:]).config
    assert {**again, "name": "run"} == {**stored.read(first / "config.yaml").config}


def test_a_check_is_said_to_be_no_result(first):
    assert "is a check that" not in drawn(first).source
    config = (first / "config.yaml").read_text()
    (first / "config.yaml").write_text(config.replace("must_learn: false", "must_learn: true"))
    stages = [{"stage": "train", "status": "passed"}, {"stage": "resume", "status": "failed"}]
    (first / "ci.json").write_text(json.dumps({"stages": stages}))
    assert "its accuracy says nothing. Stages: train passed, resume failed." in drawn(first).source


def test_a_resumed_run_tells_the_defaults_of_all_its_parts(first):
    assert main(["resume", str(first), "trainer.epochs=3"]) == 0
    command, defaults = stored.origin((first / "config.yaml").read_text())
    assert command[-1] == "trainer.epochs=3"
    assert defaults["optim.lr"] == 0.001
    assert "trainer.epochs" in {
        row[0] for row in Page(first / "report.html").tables["What differs from the defaults of the choices"]
    }


def test_the_page_stands_alone_and_forbids_all_else(first):
    page = drawn(first)
    (policy,) = [attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    for tag, attributes in page.tags:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag
        assert str(attributes.get("src", "data:")).startswith("data:")
        assert tag != "img" or attributes["alt"]
        assert tag != "th" or attributes["scope"]
    tables = page.source.count("<table")
    assert tables == page.source.count("<caption") > 4


def test_names_from_outside_are_text(first):
    found = evaluation(first)
    found["classes"][0]["name"] = HOSTILE
    found["worst"][0]["image"] = 'javascript:alert(1)" onload="alert(1)'
    change(first / "evaluation-test.json", **found)
    change(first / "summary.json", cause=HOSTILE, bottleneck=HOSTILE)
    change(first / "environment.json", platform=HOSTILE)
    page = drawn(first)
    assert page.source.count("&lt;/script&gt;&lt;img src=x") > 5
    assert "<img src=x" not in page.source
    assert "javascript:" not in page.source
    assert page.tables["Counts"][1][0] == HOSTILE


def test_names_turn_nothing_around(first):
    found = evaluation(first)
    found["classes"][0]["name"], found["classes"][1]["name"] = "\u202eback\x1b\udce9", "שלום"
    found["confusion"][2][:2] = [0, 1000]
    found["worst"][0].update(target=0, prediction=1)
    change(first / "evaluation-test.json", **found)
    source = drawn(first).source
    assert not set("\u202e\x1b\udce9") & set(source)
    assert '<th scope="row">?back??</th>' in source
    assert '<bdi>שלום</bdi> <span class="soft">' in source
    assert "<b><bdi>?back??</bdi></b><br>taken for <b><bdi>שלום</bdi></b>" in source


def test_what_is_missing_is_said(first):
    for name in ("summary.json", "environment.json", "metrics.jsonl", "evaluation-test.json"):
        (first / name).unlink()
    shutil.rmtree(first / "checkpoints")
    page = drawn(first)
    for words in (
        "unfinished",
        "dltrain resume first",
        "No result yet",
        "No curves yet",
        "dltrain eval first",
        "environment.json is not there",
    ):
        assert page.has(words), words


FILES = ("summary.json", "environment.json", "metrics.jsonl", "evaluation-test.json", "config.yaml", "looks.jsonl")
STRANGE = '{"classes": [1], "steps": "x", "status": "completed", "split": {}}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, content) for name in FILES for content in ("{\n", "[]]\n", "\xff\xfe\n")),
        *((name, STRANGE) for name in ("summary.json", "metrics.jsonl", "evaluation-test.json")),
    ],
)
def test_what_is_damaged_is_left_out_and_said(first, name, content):
    (first / name).write_text(content, encoding="latin-1")
    page = drawn(first)
    assert "What is left out" in page.source
    assert page.has("validation accuracy") or name in ("summary.json", "metrics.jsonl")


@pytest.mark.parametrize(
    ("harm", "note"),
    [
        (lambda run: (run / "summary.json").write_text("{}"), "summary.json is left out: it tells no status"),
        (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is left out: it is not there"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe"), "metrics.jsonl is left out: it holds no row"),
        (lambda run: (run / "metrics.jsonl").write_bytes(b""), "metrics.jsonl is left out: it holds no row"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "checkpoints/ is left out: it holds no weights"),
    ],
)
def test_what_a_run_that_is_over_lacks_is_said_and_one_that_has_begun_lacks_nothing(first, harm, note):
    assert "What is left out" not in drawn(first).source
    harm(first)
    page = drawn(first)
    assert page.has(note)
    assert page.source.count("<li>") - page.source.count("<li><img") == 1
    shutil.rmtree(first / "checkpoints", ignore_errors=True)
    for name in ("summary.json", "metrics.jsonl", "evaluation-test.json"):
        (first / name).unlink(missing_ok=True)
    assert "What is left out" not in drawn(first).source


def test_damaged_weights_are_left_out(first):
    for path in first.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    page = drawn(first)
    assert page.has("the first layer is left out")
    assert '<h2 id="filters">' not in page.source


def test_the_first_layer_is_the_one_that_sees_the_pixels(first):
    name, step, weights = first_layer(first)
    assert weights.shape[1] == 1
    assert weights.ndim == 4
    assert step == summary(first)["best"]["step"]
    assert drawn(first).has(f"All {len(weights)} units of {name}")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(pixels)))) == pixels).all()


def test_a_run_under_way_is_reported_without_its_lock(first, capsys):
    (first / "summary.json").unlink()
    with Lock() as lock:
        lock.take(first)
        assert main(["report", "first"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "wrote  outputs/runs/first/report.html"
    last = rows(first)[-1]["step"]
    assert Page(first / "report.html").has(f"running Under way, up to step {last}")


def test_a_page_that_cannot_be_drawn_fails_no_run(monkeypatch, capsys):
    def fail(folder):
        raise ZeroDivisionError("nothing to draw on")

    monkeypatch.setattr("dltrain.report.run_page.draw_page", fail)
    folder = train("model=mlp", "trainer.epochs=1", "trainer.limit_train_batches=2")
    assert summary(folder)["status"] == "completed"
    assert "note: no report.html: nothing to draw on" in capsys.readouterr().out


def test_a_diverged_run_says_so_first():
    folder = train("model=mlp", "optim=sgd", "optim.lr=1e38", "trainer.epochs=1", expected=65)
    page = Page(folder / "report.html")
    assert page.has("diverged It ran away. A loss or gradient up to step")


def test_runs_without_classes_have_their_own_numbers():
    folder = run("data=function", "model=point", "optim=sgd", "optim.lr=0.1", "data.steps=3")
    page = Page(folder / "report.html")
    assert page.numbers.keys() == {"summary:val.loss"}
    assert "What is left out" not in page.source
    assert page.has("every step on a landscape is an evaluation")


def test_a_long_run_of_many_classes_stays_small(first):
    row = {"split": "train", "loss": 1.0, "accuracy": 0.5, "images_per_second": 1.0, "lr": 0.1}
    values = np.random.default_rng(0).random(10_000).tolist()
    lines = [
        json.dumps({**row, "step": place + 1, "epoch": (place + 1) / 10, "loss": value})
        for place, value in enumerate(values)
    ]
    (first / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    classes = [
        {"name": f"{'class' * 40} {place}", "precision": 0.1234, "recall": 0.1, "f1": 0.1, "support": 9}
        for place in range(1000)
    ]
    image = f"data:image/png;base64,{'A' * 200_000}"
    worst = [
        {"index": n, "target": 1, "prediction": 2, "probability": 0.5, "loss": 3.0, "image": image} for n in range(24)
    ]
    confusion = np.random.default_rng(0).integers(0, 9, (1000, 1000)).tolist()
    change(first / "evaluation-test.json", classes=classes, worst=worst, confusion=confusion)
    page = drawn(first)
    assert len(page.source) < MOST_BYTES
    for words in (
        "21 pictures are left out",
        "600 with a higher F1 are left out",
        "Most frequent confusions",
        "940 earlier ones",
    ):
        assert page.has(words), words


def test_a_chart_keeps_its_peaks_and_its_gaps():
    points = [(float(place), 0.0) for place in range(5000)]
    points[1234] = (1234.0, 9.0)
    assert (1234.0, 9.0) in thinned(points, most=100)
    assert len(thinned(points, most=100)) <= 100
    found = chart("loss", [Line("training", "train", [(0, 1.0), (1, None), (2, float("nan")), (3, 2.0), (4, 2.5)])])
    assert found.lines[0]["path"].count("M") == 2
    assert found.told == "loss: training from 1 to 2.5"
    assert chart("loss", [Line("training", "train", [(0, None)])]) is None


@pytest.fixture
def sweep():
    folder = Path("outputs/sweeps/swept").resolve()
    result = write_sweep(folder, {"mlp": [0.8, 0.81, 0.83], HOSTILE: [0.9, 0.92, 0.93]})
    words = ["model=mlp,lenet", "seed=1,2,3"]
    events = [{"event": "sweep", "command": {"words": words, "config_dirs": []}}]
    events += [
        {
            "event": "job",
            "job": each["job"],
            "key": str(each["job"]),
            "overrides": [f"{k}={v}" for k, v in each["settings"].items()],
            "trial": None,
        }
        for each in result
    ]
    events += [{"event": "end", "job": each["job"], "status": "completed", "code": 0, "cause": ""} for each in result]
    (folder / "sweep.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"event": "st')
    return folder, result


def test_a_sweep_is_ranked_as_on_the_terminal(sweep, capsys, monkeypatch):
    folder, result = sweep
    monkeypatch.setattr("dltrain.report.sweep_picture.draw_sweep", lambda *a, **k: [])
    sum_up(Console(), folder, result)
    told = " ".join(capsys.readouterr().out.split())
    before = (folder / "sweep.jsonl").read_bytes()
    (folder / "0/report.html").write_text("")
    assert main(["report", "swept"]) == 0
    assert (folder / "sweep.jsonl").read_bytes() == before, "another process may be writing it"
    page = Page(folder / "report.html")
    board = page.tables["Ranked by val accuracy, mean ± standard deviation over seeds"]
    assert all(cell in told for row in board for cell in row)
    assert board[1][1] == f"model={HOSTILE}"
    assert "better than it at n = 3" in board[2][-1]
    for each in result:
        assert float(page.numbers[f"{each['job']}:val_accuracy"][0]) == each["val_accuracy"]
    assert {attributes.get("href") for tag, attributes in page.tags if tag == "a"} >= {"0/report.html", "sweep.csv"}
    assert page.has("dltrain -m model=mlp,lenet seed=1,2,3")


def test_a_sweep_of_hundreds_stays_small():
    folder = Path("outputs/sweeps/large").resolve()
    result = write_sweep(folder, {f"network-{place}": [place / 70, place / 70 + 0.01, 0.5] for place in range(67)})
    page = Page(write_page(folder, result))
    assert len(page.source) < MOST_BYTES
    assert len(page.tables["Every job, a link leading to its own page"]) == 202
    assert page.has("the first settings of the leaderboard")


def test_one_name_is_asked_for(capsys):
    assert main(["report"]) == 2
    assert main(["report", "nothing"]) == 78


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [(["train", "val", "test"], True), (["train", "test"], False), (["train", "val", "test", "test"], False)],
    ids=["once", "of the last weights", "watched"],
)
def test_a_picture_says_of_which_weights_the_one_test_is(splits, chosen, tmp_path):
    rows = [
        {"split": split, "step": 1, "epoch": 1.0 + splits[:place].count(split), "loss": 1.0, "lr": 0.1}
        for place, split in enumerate(splits)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    draw_curves(tmp_path)
    assert ("<!-- test, best weights -->" in (tmp_path / "curves.svg").read_text()) == chosen
