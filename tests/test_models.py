"""Our own networks: sizes, shapes, names and what they refuse."""

import inspect
import pkgutil
import re
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import networks
from omegaconf import OmegaConf
from torch import Tensor, nn

from dltrain import models
from dltrain.models import layers
from dltrain.models.batch_norm import ScratchBatchNorm
from dltrain.models.summary import parameter_count

FACTS = {"in_channels": 1, "image_size": 96, "num_classes": 10, "num_outputs": 10}
OPTIONS = sorted((Path(__file__).parents[1] / "conf" / "model").glob("*.yaml"))
NORMS = {
    "batch": (nn.modules.batchnorm._BatchNorm,),
    "sync_batch": (nn.SyncBatchNorm,),
    "scratch": (ScratchBatchNorm,),
    "scratch_notes": (ScratchBatchNorm,),
    "layer": (nn.LayerNorm, nn.GroupNorm),
    "group": (nn.GroupNorm,),
    "instance": (nn.InstanceNorm2d, nn.LayerNorm),
    "none": (),
}


def create(name: str, **keywords: Any) -> nn.Module:
    """A network for images of a shape, which is 1x96x96 unless `in_channels` or `image_size` say otherwise."""
    network = getattr(models, name)
    known = inspect.signature(network).parameters
    given = {**FACTS, **keywords}
    given = {"input_shape": (given["in_channels"], given["image_size"], given["image_size"]), **given}
    facts = {key: value for key, value in given.items() if key in known and key in (*FACTS, "input_shape")}
    keywords = {key: value for key, value in keywords.items() if key not in FACTS}
    model: nn.Module = network(**facts | keywords)
    return model


def create_on_meta(name: str, **keywords: Any) -> nn.Module:
    with torch.device("meta"):
        return create(name, **keywords)


def output_shape(model: nn.Module, *shape: int) -> tuple[int, ...]:
    logits: Tensor = model(torch.empty(*shape, device="meta"))
    return tuple(logits.shape)


@pytest.mark.parametrize(
    ("name", "keywords", "count"),
    [
        ("lenet", {}, 860_878),
        ("small_lenet", {"num_classes": 2}, 127_180),
        ("small_lenet", {"num_classes": 2, "image_size": 28}, 8_860),
        ("mlp", {}, 2_362_122),
        ("mlp", {"input_shape": (784,)}, 203_530),
        ("mlp", {"input_shape": (20,)}, 7_946),
        ("linear", {"input_shape": (4,), "num_outputs": 1}, 5),
        ("resnet18", {}, 11_178_378),
        ("resnet18", {"projection_norm": True, "in_channels": 3, "num_classes": 11}, 11_186_955),
        ("resnet34", {}, 21_290_250),
        ("densenet", {}, 758_226),
    ],
)
def test_parameter_counts_are_the_notes(name: str, keywords: dict[str, Any], count: int) -> None:
    assert parameter_count(create_on_meta(name, **keywords)) == count


@pytest.mark.parametrize("name", ["lenet", "small_lenet", "mlp", "resnet18", "densenet"])
def test_shapes_in_comments_are_true(name: str) -> None:
    model = create_on_meta(name)
    source = inspect.getsource(type(model))
    commented = dict(re.findall(r"self\.(\w+) = .*# ([\dx]+)$", source, flags=re.MULTILINE))
    assert list(commented) == [stage for stage, _ in model.named_children()], "a stage without its shape"

    seen = {}
    for stage, module in model.named_children():
        module.register_forward_hook(
            lambda _module, _inputs, output, stage=stage: seen.update({stage: "x".join(map(str, output.shape[1:]))})
        )
    output_shape(model, 2, 1, 96, 96)
    assert seen == commented


@pytest.mark.parametrize("path", [path for path in OPTIONS if path.stem in networks()], ids=lambda path: path.stem)
def test_every_option_builds_and_runs(path: Path) -> None:
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    keywords = {str(key): value for key, value in node.items()}
    assert path.read_text().startswith("# ")
    model = create_on_meta(keywords.pop("name"), **keywords)
    assert output_shape(model, 2, 1, 96, 96) == (2, 10)


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: path.stem)
def test_every_option_shows_the_defaults_of_its_signature(path: Path) -> None:
    node = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(node, dict)
    parameters = inspect.signature(getattr(models, node.pop("name"))).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert node == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


def test_every_network_has_an_option_and_a_name_of_its_own() -> None:
    modules = [import_module(f"dltrain.models.{info.name}") for info in pkgutil.iter_modules(models.__path__)]
    names = [name for module in modules for name in getattr(module, "__all__", ())]
    assert sorted(names) == sorted(models.__all__) == sorted(path.stem for path in OPTIONS)
    assert all(callable(getattr(models, name)) for name in names)


def norms_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, tuple(chain(*NORMS.values())))]


@pytest.mark.parametrize("name", ["lenet", "small_lenet", "mlp", "resnet18", "resnet50", "densenet", "densenet121"])
@pytest.mark.parametrize("norm", NORMS)
def test_norm_is_chosen_by_name(name: str, norm: str) -> None:
    if (name, norm) == ("mlp", "instance"):
        return  # refused, as is tested below
    model = create_on_meta(name, in_channels=3, norm=norm)
    assert all(isinstance(module, NORMS[norm]) for module in norms_of(model))
    as_many = len(norms_of(create_on_meta(name, norm="batch")))
    assert len(norms_of(model)) == (0 if norm == "none" else as_many)
    assert output_shape(model, 2, 3, 96, 96) == (2, 10)


def test_the_weights_of_sync_batch_are_those_of_batch() -> None:
    """And so is what it makes of images where nobody else has a part of the batch."""
    ours, theirs = (create("lenet", image_size=32, norm=norm) for norm in ("sync_batch", "batch"))
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(4, 1, 32, 32)
    for training in (True, False):
        assert torch.equal(ours.train(training)(images), theirs.train(training)(images))
    assert all(torch.equal(*pair) for pair in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_the_notes_norm_of_images_has_parameters_of_every_activation() -> None:
    by_channel, by_activation = (create_on_meta("lenet", norm=norm) for norm in ("scratch", "scratch_notes"))
    more = 2 * (6 * 92 * 92 - 6) + 2 * (16 * 42 * 42 - 16)
    assert parameter_count(by_activation) - parameter_count(by_channel) == more
    assert all(module.training for module in by_activation.modules())


def test_group_norm_groups_of_vectors_hold_at_least_four_features() -> None:
    groups = {size: layers.norm1d("group", size).num_groups for size in (1, 9, 10, 32, 84, 120, 256)}
    assert groups == {1: 1, 9: 1, 10: 1, 32: 8, 84: 1, 120: 2, 256: 8}


def test_group_norm_groups_divide_the_channels() -> None:
    model = create_on_meta("densenet", norm="group", growth=12)
    groups = {(m.num_channels, m.num_groups) for m in model.modules() if isinstance(m, nn.GroupNorm)}
    assert (64, 32) in groups
    assert (76, 4) in groups


@pytest.mark.parametrize("activation", layers.ACTIVATIONS)
def test_activation_is_chosen_by_name(activation: str) -> None:
    model = create_on_meta("lenet", activation=activation)
    kind = type(layers.activation(activation))
    assert sum(isinstance(module, kind) for module in model.modules()) == 4


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("lenet", {"norm": "bach"}, "norm must be one of .*batch.*none, not 'bach'"),
        ("mlp", {"norm": "instance"}, "norm of vectors must be one of batch, .*none, not 'instance'"),
        ("mlp", {"dropout_form": "note"}, "dropout_form must be one of inverted, notes, not 'note'"),
        ("small_lenet", {"image_size": 5}, "at least 6 pixels a side, not 5"),
        ("lenet", {"activation": "rule"}, "activation must be one of relu, .*, not 'rule'"),
        ("lenet", {"pool": "mean"}, "pool must be one of avg, max, not 'mean'"),
        ("lenet", {"image_size": 15}, "at least 16 pixels a side, not 15"),
        ("mlp", {"hidden_sizes": [256, 0]}, r"hidden_sizes must be 1 or more each, not \[256, 0\]"),
        ("resnet18", {"stem": "cifr"}, "stem must be one of imagenet, cifar, not 'cifr'"),
        ("densenet", {"image_size": 28}, "at least 29 pixels a side, not 28"),
        ("densenet", {"growth": 0}, "growth must be 1 or more, not 0"),
        ("densenet", {"blocks": [4, 4, 4]}, r"blocks must be four numbers of layers, .*, not \[4, 4, 4\]"),
    ],
)
def test_refusals_say_what_is_allowed(name: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_on_meta(name, **keywords)


@pytest.mark.parametrize(
    ("name", "side"), [("lenet", 16), ("small_lenet", 6), ("densenet", 29), ("densenet121", 29), ("resnet50", 1)]
)
def test_the_smallest_images_pass(name: str, side: int) -> None:
    keywords = {"image_size": side}
    assert output_shape(create_on_meta(name, **keywords).eval(), 2, 1, side, side) == (2, 10)


def test_cifar_stem_keeps_the_resolution() -> None:
    model = create_on_meta("resnet18", stem="cifar", in_channels=3)
    sides = {}
    for stage, module in model.named_children():
        module.register_forward_hook(
            lambda _module, _inputs, output, stage=stage: sides.update({stage: output.shape[-1]})
        )
    output_shape(model, 2, 3, 32, 32)
    stages = ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert [sides[stage] for stage in stages] == [32, 32, 16, 8, 4]


def test_without_shortcut_a_block_without_weights_gives_zero() -> None:
    images = torch.rand(2, 64, 8, 8)
    for shortcut, expected in [(True, images), (False, torch.zeros_like(images))]:
        model = create("resnet18", shortcut=shortcut, norm="none", conv_bias=False)
        block = model.get_submodule("stage1.0")
        nn.init.zeros_(block.get_parameter("branch.1.weight"))
        assert torch.equal(block(images), expected)


def test_plain_network_has_no_projections() -> None:
    projections = [64 * 128 + 128, 128 * 256 + 256, 256 * 512 + 512]
    residual, plain = (create_on_meta("resnet18", shortcut=shortcut) for shortcut in (True, False))
    assert parameter_count(residual) - parameter_count(plain) == sum(projections)


def test_mlp_layers_are_those_asked_for() -> None:
    model = create_on_meta("mlp", hidden_sizes=[32, 16], activation="tanh", dropout=0.5, norm="batch")
    kinds = [type(module).__name__ for module in model.modules() if not [*module.children()]]
    hidden = ["Linear", "BatchNorm1d", "Tanh", "Dropout"]
    assert kinds == ["Flatten", *hidden, *hidden, "Linear"]
    assert parameter_count(create_on_meta("mlp", hidden_sizes=[], input_shape=(1, 2, 2))) == 4 * 10 + 10


@pytest.mark.parametrize(
    ("name", "norm"),
    [*((name, "batch") for name in ("lenet", "mlp", "resnet18", "densenet")), *(("lenet", norm) for norm in NORMS)],
)
def test_one_step_in_bfloat16_and_channels_last_reaches_every_parameter(name: str, norm: str) -> None:
    model = create(name, image_size=32, norm=norm)
    model = model.to(memory_format=torch.channels_last)
    images = torch.rand(4, 1, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    logits.float().logsumexp(dim=1).sum().backward()
    assert logits.dtype == torch.bfloat16
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
