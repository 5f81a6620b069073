"""Making a component from its YAML node, and packages that add one."""

import json
import tomllib
from importlib.metadata import EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import train
from omegaconf import OmegaConf

import dltrain.components
from dltrain import models, optim
from dltrain.components import find, make
from dltrain.config.errors import ConfigError

EXAMPLE = Path(__file__).parent / "example_package"


def box(*, width: int = 3, sides: tuple[int, int] = (1, 2), lid: str | None = None, depth: int = 0) -> dict[str, Any]:
    if width < 1:
        raise ValueError(f"width must be\n  1 or more, not {width}")
    return {"width": width, "sides": sides, "lid": lid, "depth": depth}


def hidden() -> None:
    raise AssertionError("not public")


SHOP = SimpleNamespace(__name__="shop", __all__=["box"], box=box, hidden=hidden)


def node(group: str = "model", **keys: Any):
    return OmegaConf.create({group: {"name": "box", **keys}})[group]


def test_a_component_gets_its_keys_and_the_facts_it_asks_for():
    assert make(SHOP, node(width=5), depth=7, height=9) == {"width": 5, "sides": (1, 2), "lid": None, "depth": 7}


def test_null_is_the_callables_own_default():
    assert make(SHOP, node(width=None))["width"] == 3


def test_keys_of_the_whole_group_are_not_passed():
    assert make(SHOP, node("optim", decay_bias_and_norm=True))["width"] == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"colour": 1}, "model=box: colour is no argument of it"),
        ({"decay_bias_and_norm": True}, "model=box: decay_bias_and_norm is no argument of it"),
        ({"_target_": "os.system"}, "model=box: _target_ is no argument of it"),
        ({"name": "bax"}, "model.name=bax: did you mean box?"),
        ({"name": "hidden"}, "model.name=hidden: there are: box"),
        ({"name": "os.system"}, "model.name=os.system: there are: box"),
        ({"width": 0}, "model=box: width must be 1 or more, not 0"),
        ({"width": "wide"}, "model.width=wide: must be a whole number"),
        ({"sides": [1]}, "model.sides=[1]: must be a list of 2"),
        ({"lid": 3}, "model.lid=3: must be a text"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(keys, words):
    with pytest.raises(ConfigError) as refusal:
        make(SHOP, node(**keys))
    assert str(refusal.value) == words
    assert refusal.value.exit_code == 78


def test_an_annotation_for_type_checkers_alone_is_passed_over(monkeypatch):
    monkeypatch.setitem(box.__annotations__, "width", "Unknown")
    assert make(SHOP, node(width=5))["width"] == 5


@pytest.mark.parametrize("name", ["import_module", "_collect", "__doc__", "pkgutil", "layers", "nn", "torch.nn.Linear"])
def test_only_what_a_namespace_offers_is_found(name):
    with pytest.raises(ConfigError, match=r"^model\.name="):
        find(models, name, "model")


@pytest.mark.parametrize("name", ["Optimizer", "parameter_groups", "lr_scheduler", "Tensor"])
def test_only_optimizers_are_found_among_optimizers(name):
    with pytest.raises(ConfigError):
        find(optim, name, "optim")


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """The example package as if `pip install` had been run on it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(sections))
    monkeypatch.syspath_prepend(metadata.parent)
    monkeypatch.syspath_prepend(EXAMPLE)


@pytest.mark.usefixtures("installed")
def test_an_installed_package_adds_a_model_and_hydra_leaves_no_trace(tmp_path):
    flags = ["--config-dir", str(EXAMPLE / "conf"), "trainer.limit_train_batches=1", "trainer.epochs=1"]
    folder = train("model=tiny", "model.width=5", *flags)
    config = OmegaConf.load(folder / "config.yaml")
    assert config.model == {"weights": None, "name": "tiny", "width": 5}
    assert json.loads((folder / "summary.json").read_text())["steps"] == 1
    assert Path.cwd() == tmp_path
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs", "cache", "site"}


@pytest.mark.usefixtures("installed")
def test_an_installed_packages_name_is_among_those_offered():
    with pytest.raises(ConfigError, match=r"did you mean tiny"):
        find(models, "tiney", "model")


def test_without_the_package_its_yaml_names_nothing(capsys):
    train("model=tiny", "--config-dir", str(EXAMPLE / "conf"), expected=78)
    assert "model.name=tiny: there are: " in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_ours_come_before_an_installed_packages(monkeypatch):
    monkeypatch.setattr(dltrain.components, "entry_points", lambda group: EntryPoints())
    assert find(models, "lenet", "model") is models.lenet
