"""Any classifier of torchvision, by name, for images of any number of channels."""

from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from dltrain.models.summary import zero_copy, zero_inputs

__all__ = ["torchvision"]


def torchvision(*, in_channels: int, image_size: int, num_classes: int, arch: str = "resnet18") -> nn.Module:
    """Images (N, in_channels, image_size, image_size) to logits (N, num_classes), without pretrained weights.

    For other than three channels the first convolution is a new one, initialized as torch does.
    ValueError for an unknown `arch`, or one that cannot take images of that size.
    """
    from torchvision import models  # costs more than a second

    archs = models.list_models(module=models)
    if arch not in archs:
        nearest = ", ".join(get_close_matches(arch, archs, cutoff=0.0))
        raise ValueError(f"torchvision has no classifier {arch!r}; the nearest names are {nearest}")
    try:
        model = _build(arch, in_channels, image_size, num_classes)
    except (ValueError, AssertionError) as error:
        raise _refusal(arch, image_size) from error
    try:
        _run_on_zeros(model, (in_channels, image_size, image_size))
    except RuntimeError as error:
        raise _refusal(arch, image_size) from error
    return model


def _run_on_zeros(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    with torch.device("cpu"), torch.no_grad():
        zero_copy(model).eval()(zero_inputs(model, input_shape))


def _refusal(arch: str, image_size: int) -> ValueError:
    from torchvision import models

    possible = min(weights.meta["min_size"][0] for weights in models.get_model_weights(arch))
    return ValueError(f"torchvision's {arch} cannot take images of {image_size} pixels a side, but can take {possible}")


def _build(arch: str, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    from torchvision import models

    device = torch.get_default_device()
    # RegNets compute their widths in tensors, which the meta device cannot do.
    with torch.device("cpu") if arch.startswith("regnet") else nullcontext():
        settings = _settings(arch, image_size)
        model: nn.Module = models.get_model(arch, weights=None, num_classes=num_classes, **settings)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model.to(device)


def _settings(arch: str, image_size: int) -> dict[str, Any]:
    if arch.startswith("vit"):
        return {"image_size": image_size}
    if arch.startswith("maxvit"):
        return {"input_size": (image_size, image_size)}
    if arch in ("googlenet", "inception_v3"):
        # An auxiliary classifier would give a tuple in training; without init_weights both warn.
        return {"aux_logits": False, "init_weights": True}
    return {}


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    name, old = next((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    model.set_submodule(name, new)
