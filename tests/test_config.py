"""Composing and checking: what a command line, a preset and a foreign folder may say, and what is refused."""

import shutil
from pathlib import Path

import pytest
from helpers import CONF
from omegaconf.errors import ReadonlyConfigError

from dltrain.config import schema
from dltrain.config.compose import compose, parse, shown
from dltrain.config.errors import ConfigError, UsageError
from dltrain.config.folders import conf_dir, groups, nearest, options


def write(path: str, text: str) -> None:
    """A file of a folder of one's own, `extra/`."""
    file = Path("extra") / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def with_preset(text: str, *overrides: str):
    """Compose with a preset of this text."""
    write("experiment/mine.yaml", f"# @package _global_\n{text}")
    return compose(["experiment=mine", *overrides], config_dirs=["extra"])


PRESET = """
defaults:
  - override /model: mlp
  - override /optim: sgd
optim:
  lr: 0.5
  momentum: 0.9
model:
  hidden_sizes: [7]
trainer:
  epochs: 9
"""


def test_nothing_chosen_gives_the_defaults():
    made = compose()
    assert made.choices["model"] == "lenet"
    assert made.config.optim.lr == 0.001
    assert (made.notes, made.sweep) == ((), ())
    assert {"logger", "experiment", "hydra"}.isdisjoint(made.config)


def test_a_composed_config_cannot_be_changed():
    with pytest.raises(ReadonlyConfigError):
        compose().config.optim.lr = 1.0


def test_composing_writes_nothing_and_stays_where_it_is():
    before = Path.cwd()
    compose(["model=mlp", "optim.lr=1"])
    assert Path.cwd() == before
    assert list(before.iterdir()) == []


def test_an_edited_yaml_is_seen_in_a_checkout_and_in_a_wheel(monkeypatch, tmp_path):
    package = tmp_path / "dltrain"
    monkeypatch.setattr("dltrain.config.folders.__file__", str(package / "config" / "folders.py"))
    shutil.copytree(CONF, package / "conf")
    (package / "conf" / "optim" / "adam.yaml").write_text("name: Adam\nlr: 7.0\n")
    assert conf_dir() == package / "conf"
    assert compose().config.optim.lr == 7

    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "pyproject.toml").touch()
    assert conf_dir() == tmp_path / "conf"
    assert compose().config.optim.lr == 0.001


def test_ours_come_before_a_foreign_folders_option_of_the_same_name():
    write("optim/adam.yaml", "name: Adam\nlr: 7.0\n")
    assert compose(config_dirs=["extra"]).config.optim.lr == 0.001


def test_a_plus_is_not_needed_and_does_no_harm():
    assert compose(["optim.lr=1", "+trainer.epochs=4", "++seed=3"]).config.trainer.epochs == 4


@pytest.mark.parametrize("group", ["logger", "experiment"])
def test_an_empty_group_may_be_chosen_empty(group):
    assert group not in compose([f"{group}=null"]).choices


def test_a_group_that_is_empty_is_chosen_without_a_plus():
    assert compose(["logger=tensorboard"]).config.logger.tensorboard.name == "tensorboard"


def test_the_last_value_given_twice_wins():
    config = compose(["model=mlp", "optim.lr=1", "model=lenet", "optim.lr=2"]).config
    assert (config.model.name, config.optim.lr) == ("lenet", 2)


def test_a_key_refers_to_another():
    assert compose(["optim.lr=0.5", "optim.weight_decay=${optim.lr}"]).config.optim.weight_decay == 0.5


@pytest.mark.parametrize("text", ["/a=b", "/a b", "/a,b", "/it's", "[x]", "{y}", "50%", "a:b", "#1"])
def test_quotes_take_any_text(text):
    assert parse(f'data.root="{text}"').value() == text


def test_the_advice_on_quoting_is_right():
    with pytest.raises(UsageError, match=r"as in data\.root='\"/a=b\"'"):
        parse("data.root=/a=b")
    assert compose(['data.root="/a=b"']).config.data.root == "/a=b"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optim.lr=${oc.env:HOME}", "resolvers are not offered"),
        ("outputs_dir='${now:%Y}'", "resolvers are not offered"),
        ("name='${hydra:job.name}'", "resolvers are not offered"),
        ("optim.betas=['${oc.env:HOME}',1]", "resolvers are not offered"),
        ("data.classes=[{a:'${oc.env:HOME}'}]", "resolvers are not offered"),
        ("outputs_dir='${${name}:HOME}'", "resolvers are not offered"),
        ("outputs_dir='$'", None),
        ("optim.lr=${optim.nothing}", "optim.lr: Interpolation key 'optim.nothing' not found"),
        ("optim.lr=${optim.lr}", "optim.lr: Recursive interpolation"),
        ("optim.lr=${model.name}", "optim.lr=lenet: must be a number"),
        ("outputs_dir=${hydra.run.dir}", "outputs_dir: "),
        ("outputs_dir='???'", "outputs_dir=???: give it a value"),
    ],
)
def test_references_are_offered_and_resolvers_are_not(override, words):
    if words is None:
        assert compose([override]).config.outputs_dir == "$"
    else:
        with pytest.raises(ConfigError) as refusal:
            compose([override])
        assert words in str(refusal.value)


def test_a_reference_cannot_be_pieced_together():
    with pytest.raises(ConfigError, match="cannot make a reference"):
        compose(["data.root=$", 'outputs_dir="${data.root}{oc.env:HOME}"'])


def test_a_preset_applies():
    made = with_preset(PRESET)
    assert made.choices["optim"] == "sgd"
    assert (made.config.optim.lr, made.config.optim.momentum, made.config.trainer.epochs) == (0.5, 0.9, 9)
    assert made.config.model.hidden_sizes == [7]
    assert made.notes == ()


def test_another_choice_drops_what_the_preset_says_of_that_group_alone():
    made = with_preset(PRESET, "optim=adam", "trainer=smoke")
    assert (made.config.optim.name, made.config.optim.lr) == ("Adam", 0.001)
    assert made.config.trainer.epochs == 1
    assert made.config.model.hidden_sizes == [7]
    assert made.notes == (
        "optim=adam was chosen: the preset's optim.lr, optim.momentum do not apply",
        "trainer=smoke was chosen: the preset's trainer.epochs does not apply",
    )


def test_a_key_that_the_command_line_gives_is_not_said_to_be_lost():
    made = with_preset(PRESET, "optim=adam", "optim.lr=3")
    assert made.notes == ("optim=adam was chosen: the preset's optim.momentum does not apply",)
    assert with_preset(PRESET, "trainer=smoke", "trainer.epochs=2").notes == ()


def test_the_same_choice_keeps_what_the_preset_says():
    made = with_preset(PRESET, "optim=sgd")
    assert made.config.optim.lr == 0.5
    assert made.notes == ()


@pytest.mark.parametrize("choice", [["optim=sgd"], ["optim=adam"]])
def test_a_value_on_the_command_line_wins_over_a_preset(choice):
    assert with_preset(PRESET, "optim.lr=3", *choice).config.optim.lr == 3


def test_a_group_that_the_preset_fills_can_be_emptied():
    made = with_preset("defaults:\n  - override /logger: tensorboard\n", "logger=null")
    assert "logger" not in made.config
    assert "logger" not in made.choices


def test_a_preset_may_choose_several_loggers_and_the_command_line_wins():
    text = "defaults:\n  - override /logger: [tensorboard, wandb]\nlogger:\n  wandb:\n    project: shoes\n"
    made = with_preset(text)
    assert made.choices["logger"] == "[tensorboard,wandb]"
    assert made.config.logger.wandb.project == "shoes"
    assert with_preset(text, "logger=[tensorboard,wandb]").config.logger.wandb.project == "shoes"
    other = with_preset(text, "logger=mlflow")
    assert list(other.config.logger) == ["mlflow"]
    assert other.notes == ("logger=mlflow was chosen: the preset's logger.wandb.project does not apply",)


def test_a_preset_asks_for_a_sweep_and_the_command_line_wins_over_it():
    text = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      optim.lr: 0.1,0.2\n      seed: 1,2\n"
    assert with_preset(text, "seed=3").sweep == ("optim.lr=0.1,0.2",)
    made = with_preset(text, "optim=sgd")
    assert made.sweep == ("seed=1,2",)
    assert made.notes == ("optim=sgd was chosen: the preset's optim.lr does not apply",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim:\n  lrr: 1\n", "unknown key optim.lrr: did you mean optim.lr"),
        ("optim:\n  lr: fast\n", "optim.lr=fast: must be a number"),
        ("optim:\n  lr: {a: 1}\n", "unknown key optim.lr.a"),
        ("epochs: 3\n", "unknown key epochs: did you mean trainer.epochs"),
        ("name: ${oc.env:HOME}\n", "resolvers are not offered"),
        ("optim: ${oc.env:HOME}\n", "resolvers are not offered"),
        ("model:\n  _target_: os.system\n", "unknown key model._target_"),
        ("defaults:\n  - override /model: nope\n", "nope"),
        ("optim: [\n", "expected"),
    ],
)
def test_a_preset_is_checked_like_a_command_line(text, words):
    with pytest.raises(ConfigError) as refusal:
        with_preset(text)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "setting",
    [
        "callbacks: {mine: {_target_: os.system}}",
        "run: {dir: elsewhere}",
        "job: {env_set: {PATH: x}}",
        "job_logging: {version: 2}",
        "launcher: {_target_: os.system}",
        "anything: 1",
        "searchpath: [file:///tmp]",
    ],
)
def test_a_preset_may_not_touch_hydra(setting):
    with pytest.raises(ConfigError, match="hydra"):
        with_preset(f"hydra:\n  {setting}\n")


@pytest.mark.parametrize(
    ("file", "name"), [("mine.yaml", "mine"), ("optim/mine.yaml", "config")], ids=["primary", "option"]
)
@pytest.mark.parametrize("setting", ["run: {dir: elsewhere}", "callbacks: {mine: {_target_: os.system}}"])
def test_a_foreign_folder_may_not_touch_hydra(file, name, setting):
    base = "defaults:\n  - config\n  - _self_\n" if name == "mine" else ""
    write(file, f"# @package _global_\n{base}hydra:\n  {setting}\n")
    with pytest.raises(ConfigError, match="Hydra's own settings are not offered"):
        compose(["optim=mine"] if name == "config" else [], config_name=name, config_dirs=["extra"])


def test_a_foreign_primary_config_is_checked():
    write("mine.yaml", "defaults:\n  - config\n  - _self_\ntrainer:\n  epochs: 5\n")
    assert compose(["optim=sgd"], config_name="mine", config_dirs=["extra"]).config.trainer.epochs == 5
    write("mine.yaml", "defaults:\n  - config\n  - _self_\nepohs: 5\n")
    with pytest.raises(ConfigError, match="unknown key epohs"):
        compose(config_name="mine", config_dirs=["extra"])


def test_a_foreign_option_of_a_group_without_callables_is_checked():
    write("trainer/mine.yaml", "defaults:\n  - default\nepohs: 5\n")
    with pytest.raises(ConfigError, match=r"unknown key trainer\.epohs: did you mean trainer\.epochs"):
        compose(["trainer=mine"], config_dirs=["extra"])


@pytest.mark.parametrize("name", ["with space", "it's,[a]=b"])
def test_a_foreign_folder_may_have_any_name(name):
    folder = Path(name) / "optim"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: SGD\nlr: 0.25\n")
    assert compose(["optim=mine"], config_dirs=[name]).config.optim.lr == 0.25


def test_what_is_shown_is_what_applies():
    config = with_preset(PRESET, "optim=adam").config
    assert "lr: 0.001" in shown(config)
    assert shown(config, "model").splitlines()[:3] == ["weights: null", "name: mlp", "hidden_sizes:"]
    assert shown(config, "optim.lr") == "0.001\n"
    assert shown(config, "name") == "null\n"
    with pytest.raises(ConfigError, match=r"--package model\.nothing: there is nothing"):
        shown(config, "model.nothing")


def test_groups_are_folders_with_yaml_files():
    write("optim/mine.yaml", "name: SGD\n")
    write("hydra/mine.yaml", "a: 1\n")
    write(".git/config", "")
    assert groups([Path("extra")]) == ["optim"]
    assert options("optim", [Path("extra")]) == ["mine"]


def test_the_nearest_are_named_and_all_where_none_is_near():
    assert nearest("lent", ["lenet", "mlp"]) == "did you mean lenet?"
    assert nearest("xyz", ["lenet", "mlp"]) == "there are: lenet, mlp"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("optim.lr", 1, None),
        ("optim.lr", True, "must be a number"),
        ("optim.lr", float("nan"), "must be finite"),
        ("optim.lr", float("inf"), "must be finite"),
        ("optim.lr", 0.0, "must be above 0"),
        ("optim.lr", None, "must be a number"),
        ("optim.weight_decay", -1e-9, "must be at least 0"),
        ("trainer.epochs", 2.0, "must be a whole number"),
        ("trainer.epochs", 10**400, None),
        ("trainer.limit_train_batches", None, None),
        ("trainer.limit_train_batches", 0, "must be at least 1"),
        ("trainer.ema", 1.0, "must be below 1"),
        ("trainer.must_learn", 1, "must be true or false"),
        ("trainer.monitor", "loss", "must be one of val_accuracy, val_loss"),
        ("trainer.checkpoint_every", "2 epochs", None),
        ("trainer.checkpoint_every", "10 minutes", None),
        ("trainer.checkpoint_every", "1 step", None),
        ("trainer.checkpoint_every", "0 steps", 'must be auto, or such as "500 steps", "2 epochs", "10 minutes"'),
        ("data.classes", [0, 6], None),
        ("data.classes", [0, 6.5], "must be a whole number"),
        ("data.classes", 0, "must be a list, such as [1,2]"),
        ("data.image_size", 27, "must be at least 28"),
        ("data.root", 5, "must be a text"),
        ("data.resident_limit", None, None),
        ("data.resident_limit", -1, "must be at least 0"),
        ("data.workers", 0, None),
        ("data.workers", None, "must be a whole number"),
        ("device.name", "tpu", "must be one of auto, cpu, cuda, mps"),
        ("schedule.warmup", 5, None),
        ("schedule.warmup", 0.5, None),
        ("schedule.warmup", 1.0, "must be a count of steps, or a fraction below 1 of all steps"),
        ("schedule.warmup", -1, "must be a count of steps, or a fraction below 1 of all steps"),
        ("seed", 2**31, "must be at most 2147483647"),
        ("name", "a" * 80, None),
        ("name", "a" * 81, "must be 1 to 80 letters, digits, '.', '_' or '-', the first no '-'"),
        ("name", "a/b", "must be 1 to 80 letters, digits, '.', '_' or '-', the first no '-'"),
        ("name", "..", "must be 1 to 80 letters, digits, '.', '_' or '-', the first no '-'"),
        ("name", "a\n", "must be 1 to 80 letters, digits, '.', '_' or '-', the first no '-'"),
    ],
)
def test_the_keys_of_a_group_have_types_and_ranges(key, value, words):
    assert schema.refusal(key, value, example=None) == words


@pytest.mark.parametrize(
    ("example", "value", "words"),
    [
        (0.1, 1, None),
        (0.1, float("nan"), "must be finite"),
        (1, 0.5, "must be a whole number"),
        ("a", 1, "must be a text"),
        (True, "yes", "must be true or false"),
        (True, None, None),
        ([1], [2, 3], None),
        ([1], [], None),
        ([1], [2.5], "must be a whole number"),
        ([0.5], ["a"], "must be a number"),
        ([], ["a", 1], None),
        (None, "anything", None),
    ],
)
def test_the_keys_of_a_component_have_the_types_of_their_yaml(example, value, words):
    assert schema.refusal("model.any", value, example) == words


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (tuple[float, float], [0.9, 1], None),
        (tuple[float, float], [0.9], "must be a list of 2"),
        (tuple[float, ...], [0.9], None),
        (float | str, "a", None),
        (float | str, [1], "must be a number"),
        (Path, True, None),
    ],
)
def test_annotations_of_callables_are_understood(hint, value, words):
    assert schema.misfit(value, hint) == words
