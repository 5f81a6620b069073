"""A network as a list of layers (course notes: Sequential, blocks, lazy sizes)."""

import inspect
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import nn

from dltrain.models.layer_kinds import KINDS, Inputs, words

__all__ = ["sequential"]

OUTPUTS = "outputs"
PAIRS_AND_LISTS = {"kernel", "padding", "stride", "dilation", "layers"}


def sequential(
    *,
    input_shape: Sequence[int],
    num_outputs: int,
    layers: Sequence[Any] = ("flatten", {"linear": 256}, "relu", {"linear": "outputs"}),
) -> nn.Module:
    """Inputs (N, *input_shape) through layers, one after the other.

    A layer is the name of its kind (`relu`), the name with its first key's value (`conv: 6`) or with several keys
    (`conv: {channels: 6, kernel: 5}`), or a list of layers. The word `outputs` as a value is `num_outputs`. Sizes of
    inputs are inferred: each layer runs on zeros as soon as it is made, which also gives torch's lazy ones theirs.
    Raises ValueError that names the layer by its index, and both shapes where they do not fit each other.
    """
    return _chain(layers, tuple(input_shape), num_outputs, "layers")


def _chain(items: Sequence[Any], shape: tuple[int, ...], num_outputs: int, where: str) -> nn.Sequential:
    """The layers of a list; `where` is the list's own place."""
    if isinstance(items, str) or not isinstance(items, Sequence) or not items:
        raise ValueError(f"{where} must be a list of layers, such as [flatten, {{linear: outputs}}], not {items!r}")
    modules = []
    for index, item in enumerate(items):
        place = f"{where}[{index}]"
        if isinstance(item, Sequence) and not isinstance(item, str):
            module: nn.Module = _chain(item, shape, num_outputs, place)
        else:
            name, keywords = _read(item, num_outputs, place)
            place = f"{place} ({name})"
            inputs = Inputs(shape, partial(_chain, shape=shape, num_outputs=num_outputs, where=place))
            module = _made(name, inputs, keywords, place)
        shape = _shape_after(module, shape, place)
        modules.append(module)
    return nn.Sequential(*modules)


def _read(item: Any, num_outputs: int, place: str) -> tuple[str, dict[str, Any]]:
    """The kind and the keys of a layer."""
    entries = {item: None} if isinstance(item, str) else item
    if not isinstance(entries, Mapping) or len(entries) != 1:
        raise ValueError(f"{place}: a layer is a name, or a name with its keys as in {{linear: 10}}, not {item!r}")
    ((name, value),) = entries.items()
    if name not in KINDS:
        raise ValueError(f"{place}: unknown layer {name!r}: {_nearest(str(name), KINDS)}")
    keys = [key for key, each in inspect.signature(KINDS[name]).parameters.items() if each.kind is each.KEYWORD_ONLY]
    if not isinstance(value, Mapping):
        if value is not None and not keys:
            raise ValueError(f"{place}: {name} takes no value, not {value!r}")
        value = {} if value is None else {keys[0]: value}
    for key in value:
        if key not in keys:
            raise ValueError(f"{place} ({name}): unknown key {key!r}: {_nearest(str(key), keys)}")
        if isinstance(value[key], list | dict) and key not in PAIRS_AND_LISTS:
            raise ValueError(f"{place} ({name}): {key} must be one value, not {value[key]!r}")
    return str(name), {key: num_outputs if given == OUTPUTS else given for key, given in value.items()}


def _made(name: str, inputs: Inputs, keywords: Mapping[str, Any], place: str) -> nn.Module:
    required = (
        key
        for key, each in inspect.signature(KINDS[name]).parameters.items()
        if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    )
    if lacking := [key for key in required if key not in keywords]:
        raise ValueError(f"{place} needs {lacking[0]}, as in {{{name}: 10}}")
    module: nn.Module = _worded(place, inputs.shape, lambda: KINDS[name](inputs, **keywords))
    return module


def _shape_after(module: nn.Module, shape: tuple[int, ...], place: str) -> tuple[int, ...]:
    """What a layer makes of a shape; this dry run gives its parameters their sizes."""

    def run() -> tuple[int, ...]:
        with torch.no_grad():
            return tuple(module.eval()(torch.zeros(1, *shape)).shape[1:])

    after: tuple[int, ...] = _worded(place, shape, run)
    module.train()
    return after


def _worded(place: str, shape: tuple[int, ...], action: Any) -> Any:
    """Run an action; what goes wrong is told with the layer's place and the shape it gets, where it is not already."""
    try:
        return action()
    except (ValueError, RuntimeError) as error:
        message = str(error).splitlines()[0]
        told = message.startswith("layers[")
        raise ValueError(message if told else f"{place} gets {words(shape)}: {message}") from error


def _nearest(word: str, known: Any) -> str:
    near = get_close_matches(word, known, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
