"""Every command of the README runs (on little data, for a few steps), and its Python too."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import FASHION_MNIST
from helpers import LITTLE, summary
from PIL import Image

from dltrain import data
from dltrain.cli import main

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.md").read_text()
FEW = ("trainer.epochs=1", "trainer.limit_train_batches=2", "data.batch_size=32", "device.threads=1")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Each distinct command line of the README's shell blocks, without its comment."""
    lines = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(program)))


def on_little_data(words: list[str]) -> list[str]:
    """The same command on synthetic data for a few steps; its own choices of data stay."""
    chosen = {word.split("=")[0] for word in words if "=" in word}
    data = [] if "data" in chosen else [word for word in LITTLE if word.split("=")[0] not in chosen]
    own = ("data.",) * ("data" in chosen) + ("trainer.",) * ("trainer=smoke" in words or "trainer=ci" in words)
    return [*words, *data, *(word for word in FEW if not word.startswith(own))]


@pytest.mark.parametrize("line", commands("dltrain"))
def test_a_command_runs(line):
    words = shlex.split(line)[1:]
    verb = bool(words) and "=" not in words[0] and not words[0].startswith("-")
    if words[:1] == ["data"] and not FASHION_MNIST.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    composed = words[0] in ("inspect", "lr-find", "overfit") and "=" in words[1]
    plain = (verb and not composed) or any(word in ("--help", "--cfg", "-sc") for word in words)
    expected = 78 if "78" in line_of(line) else 0
    runs = (
        [word for word in words[1:] if "=" not in word]
        if words[0] in ("diff", "resume", "inspect", "eval", "export", "watch", "replay", "report")
        else []
    )
    for name in [*runs, *(word.partition("=")[2] for word in words if word.startswith("init.path="))]:
        assert main([*on_little_data(["model=mlp"]), f"name={name}"]) == 0
    if words[:1] == ["predict"] and "--prompt" not in words:
        assert main([*on_little_data(["model=mlp"]), f"name={words[1]}"]) == 0
        Path("pictures").mkdir()
        for path in ("shoe.jpg", "pictures/shoe.jpg"):
            Image.new("L", (40, 30)).save(path)
    elif words[:1] == ["predict"]:
        assert main([*on_little_data(["data=text", "data.path=README.md"]), f"name={words[1]}"]) == 0
    assert main(words if plain else on_little_data(words)) == expected


def line_of(command: str) -> str:
    """The comment beside a command."""
    return next(line for block in blocks("sh") for line in block.splitlines() if line.startswith(command)).partition(
        "  #"
    )[2]


def test_the_scripts_that_it_names_are_there():
    for line in commands("./scripts"):
        assert (CHECKOUT / shlex.split(line)[0]).stat().st_mode & 0o100, line


def test_tab_completion_can_be_evaluated():
    line = next(line for line in commands("eval") if "dltrain" in line)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    shown = subprocess.run(
        ["bash", "-c", f"{line} && complete -p dltrain"], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert "_dltrain" in shown.stdout


def test_the_python_of_the_readme_runs(capsys):
    assert main([*LITTLE, *FEW, "model=mlp", "name=first"]) == 0
    (program,) = [block for block in blocks("python") if "dltrain.load" in block]
    exec(program, {"images": np.zeros((2, 28, 28), np.uint8)})
    assert "mlp" in capsys.readouterr().out


def test_the_data_set_of_the_readme_trains_as_it_stands(monkeypatch):
    (program,) = [block for block in blocks("python") if "class stripes" in block]
    (settings,) = [block for block in blocks("yaml") if "name: stripes" in block]
    module = {"__name__": "dltrain.data.stripes", "__package__": "dltrain.data"}
    exec(program, module)
    monkeypatch.setattr(data, "stripes", module["stripes"], raising=False)
    monkeypatch.setattr(data, "__all__", [*data.__all__, *module["__all__"]])
    Path("conf/data").mkdir(parents=True)
    Path("conf/data/stripes.yaml").write_text(settings)
    words = ["data=stripes", "model=mlp", "trainer.epochs=1", "device=cpu"]
    assert main(["--config-dir", "conf", *words, "name=run"]) == 0
    assert summary(Path("outputs/runs/run"))["test"]["accuracy"] > 0.95


def test_the_table_of_groups_is_complete():
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|(.*)\|$", README, re.MULTILINE)
    table = {group: set(re.findall(r"`(\w+)`", choices)) for group, choices in rows}
    listed = subprocess.run(["git", "ls-files", "conf"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    there: dict[str, set[str]] = {}
    for path in map(Path, listed.stdout.split()):  # a file of one's own need not be in the README
        if len(path.parts) == 3:
            there.setdefault(path.parts[1], set()).add(path.stem)
    assert table == there


def test_the_example_package_is_shown_as_it_is():
    for path in sorted((CHECKOUT / "tests/example_package").rglob("*")):
        if path.suffix in (".py", ".yaml", ".toml"):
            assert path.read_text().strip() in README, path.name


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, anchor = target.partition("#")
        assert path.startswith("https://") or (CHECKOUT / path).exists(), target
        if anchor and not path.startswith("https://"):
            headings = re.findall(r"^#+ (.*)", (CHECKOUT / path).read_text(), re.M)
            assert anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings], target
