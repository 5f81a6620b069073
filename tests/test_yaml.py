"""Every YAML file of `conf/` against the callable or the dataclass it stands for, both ways, by listing `conf/`."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import CONF, options

from dltrain import data, initializers, loggers, losses, models, optim, schedules
from dltrain.components import find
from dltrain.config import schema
from dltrain.config.compose import compose
from dltrain.config.folders import SEVERAL
from dltrain.data import augment
from dltrain.optim import scratch, second_order

NAMESPACES = {
    "model": models,
    "optim": optim,
    "schedule": schedules,
    "loss": losses,
    "data": data,
    "init": initializers,
    "augment": augment,
    "logger": loggers,
}
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
FILES = sorted(CONF.rglob("*.yaml"))
COMPONENTS = [(group, option) for group in NAMESPACES for option in options(group)]
LEFT_TO_THE_ENGINE = {"foreach", "fused", "capturable", "maximize", "differentiable", "products"}
STAND_IN_THE_COMPONENTS = {"optim": {"lr", "weight_decay"}, "data": {"root"}, "device": {"name"}}
COMPANIONS = {  # keys of the whole group, of which an option brings other values
    "data/csv": {"val_size", "monitor"},
    "data/image_folder": {"val_size"},
    "data/function": {"batch_size", "val_size", "monitor"},
    "data/linear_synthetic": {"val_size", "monitor"},
    "data/text": {"batch_size", "val_size", "monitor"},
    "data/markov_text": {"batch_size", "val_size", "monitor"},
}
DEVIATIONS: dict[tuple[str, str], tuple[Any, str]] = {  # from the callable's own defaults
    ("optim/sgd", "lr"): (0.01, "the notes' default"),
    ("optim/momentum", "lr"): (0.01, "the notes' default"),
    ("optim/momentum", "momentum"): (0.9, "the notes' default; what the option is for"),
    ("optim/nesterov", "lr"): (0.01, "the notes' default"),
    ("optim/nesterov", "momentum"): (0.9, "the notes' default; what the option is for"),
    ("optim/nesterov", "nesterov"): (True, "what the option is for"),
    ("optim/adagrad", "eps"): (1e-7, "the notes' rule, exactly"),
    ("optim/rmsprop", "alpha"): (0.9, "the notes' default"),
    ("optim/adadelta", "eps"): (1e-5, "torch's 1e-6 misses the band of the notes' regression run"),
    ("data/mnist", "folder"): ("mnist", "what the option is for"),
    ("data/kmnist", "folder"): ("kmnist", "what the option is for"),
    ("data/kmnist", "class_names"): (["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"], "its ten classes"),
}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def defaults(group: str, name: str) -> dict[str, Any]:
    """The keywords that a user may set and their defaults; what has none is a fact, given by `build`."""
    parameters = inspect.signature(find(NAMESPACES[group], name, group)).parameters.values()
    settable = [each for each in parameters if each.default is not each.empty and each.name not in LEFT_TO_THE_ENGINE]
    return {each.name: list(each.default) if isinstance(each.default, tuple) else each.default for each in settable}


@pytest.mark.parametrize(("group", "option"), COMPONENTS)
def test_a_component_shows_every_keyword_with_its_default(group, option):
    node = read(CONF / group / f"{option}.yaml")
    expected = defaults(group, node.pop("name"))
    brought = {"defaults", *COMPANIONS.get(f"{group}/{option}", ())}
    node = {key: value for key, value in node.items() if key not in brought}
    deviations = {key: value for (where, key), (value, _) in DEVIATIONS.items() if where == f"{group}/{option}"}
    assert node == expected | deviations
    assert all(expected[key] != value for key, value in deviations.items())


def test_every_deviation_belongs_to_an_option():
    assert {where for where, _ in DEVIATIONS} <= {f"{group}/{option}" for group, option in COMPONENTS}


@pytest.mark.parametrize("group", NAMESPACES)
def test_every_callable_of_ours_has_an_option(group):
    named = {read(CONF / group / f"{option}.yaml")["name"] for option in options(group)}
    ours = (
        {"Muon", "LBFGS", *scratch.__all__, *second_order.__all__}
        if group == "optim"
        else set(NAMESPACES[group].__all__)
    )
    assert ours <= named


def test_the_component_groups_are_those_that_the_schema_leaves_to_their_callables():
    assert set(NAMESPACES) == schema.COMPONENTS
    assert set(GROUPS) - set(NAMESPACES) == {"device", "trainer", "experiment"}


@pytest.mark.parametrize("group", [group for group in schema.GROUPS if group not in ("", "trainer")])
def test_the_keys_of_a_group_are_its_dataclass(group):
    expected = {field.name for field in fields(schema.GROUPS[group])} - STAND_IN_THE_COMPONENTS.get(group, set())
    node = read(CONF / "config.yaml")
    for name in group.split("."):
        node = node[name]
    assert {key for key, value in node.items() if not isinstance(value, dict)} == expected


def test_the_keys_of_no_group_are_the_root_dataclass():
    found = set(read(CONF / "config.yaml")) - {"defaults", *GROUPS, *schema.GROUPS}
    assert found == {field.name for field in fields(schema.Root)}


def test_the_defaults_name_every_group_once():
    entries = read(CONF / "config.yaml")["defaults"]
    assert sorted(group for entry in entries if isinstance(entry, dict) for group in entry) == GROUPS
    assert list(entries[-1]) == ["experiment"], "presets come last"


def test_the_default_trainer_is_the_trainer_dataclass():
    assert list(read(CONF / "trainer" / "default.yaml")) == [field.name for field in fields(schema.Trainer)]


@pytest.mark.parametrize("option", options("device"))
def test_a_device_is_its_name(option):
    assert read(CONF / "device" / f"{option}.yaml") == {"name": option}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_begins_by_saying_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0].split()) > 2


@pytest.mark.parametrize("turn", range(max(len(options(group)) for group in NAMESPACES)))
def test_options_of_all_groups_compose_with_one_another(turn):
    known = {group: options(group) for group in GROUPS if group != "experiment"}
    chosen = {group: found[turn % len(found)] for group, found in known.items()}
    made = compose([f"{group}={option}" for group, option in chosen.items()])
    assert made.choices == chosen
    for group in NAMESPACES:
        node = made.config[group][chosen[group]] if group in SEVERAL else made.config[group]
        assert node.name == read(CONF / group / f"{chosen[group]}.yaml")["name"]


@pytest.mark.parametrize("option", options("experiment"))
def test_every_preset_composes(option):
    made = compose([f"experiment={option}"])
    assert made.choices["experiment"] == option
    assert made.notes == ()
