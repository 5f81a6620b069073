"""Number formats: autocast, and the scaling of losses that float16 needs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dltrain.engine.device import DeviceError, cpu_flags

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FAST_BF16 = {"amx_bf16", "avx512_bf16"}


def fastest(device: torch.device) -> str:
    """bf16 where the device is fast at it, fp16 where only that is, else fp32."""
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16" if major >= 8 else "fp16" if major >= 7 else "fp32"
    return "bf16" if device.type == "cpu" and FAST_BF16 & cpu_flags() else "fp32"


class Precision:
    """Autocast of one number format, and for float16 a loss scale that follows the gradients.

    The scale halves when a gradient is not finite and doubles after `interval` finite steps, on the device,
    so that nothing waits for it. The others have the constant scale 1; fp64 is for models that are so themselves.
    Source: Micikevicius et al. 2018.
    """

    def __init__(self, name: str, device: torch.device, *, interval: int = 2000) -> None:
        if name == "fp16" and device.type == "cpu":
            raise DeviceError("device.precision=fp16: a CPU is not fast at it; choose bf16 or fp32")
        self.name = name
        self.device_type = device.type
        self.interval = interval
        self.scaled = name == "fp16"
        self.scale = torch.tensor(2.0**16 if self.scaled else 1.0, device=device)
        self.finite_steps = torch.zeros((), device=device)

    def autocast(self) -> torch.autocast:
        """A context in which the model computes in this format."""
        return torch.autocast(self.device_type, dtype=DTYPES[self.name], enabled=self.name in ("bf16", "fp16"))

    def keep_recurrent(self, model: nn.Module) -> None:
        """Have recurrent layers compute in float32 where autocast would not have them in this format.

        On CUDA it has them in float16, whatever was asked, and here nobody scales a loss of bfloat16.
        Source: aten/src/ATen/cudnn/AutocastRNN.cpp.
        """
        if self.lacks_recurrence:
            for layer in recurrent_layers(model):
                layer.forward = partial(_in_float32, layer)

    @property
    def lacks_recurrence(self) -> bool:
        """Whether autocast has recurrent layers in another format than this one."""
        return self.device_type == "cuda" and self.name == "bf16"

    def scale_up(self, loss: Tensor) -> Tensor:
        """The loss whose gradients stay within float16's range."""
        return loss * self.scale if self.scaled else loss

    def scale_down(self, gradients: list[Tensor]) -> None:
        """Undo the scale in the gradients."""
        if self.scaled:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def follow(self, finite: Tensor) -> None:
        """Move the scale after a step whose gradients were finite, or were not."""
        if self.scaled:
            self.finite_steps.add_(1).mul_(finite)
            grown = self.finite_steps >= self.interval
            self.finite_steps.mul_(~grown)
            self.scale.mul_(1 + grown.float()).div_(1 + (~finite).float())

    def state_dict(self) -> dict[str, Tensor]:
        """The scale and the count of finite steps."""
        return {"scale": self.scale, "finite_steps": self.finite_steps} if self.scaled else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a scale, where there is one and this format has one too."""
        if self.scaled and state:
            self.scale.copy_(state["scale"])
            self.finite_steps.copy_(state["finite_steps"])


def recurrent_layers(model: nn.Module) -> list[nn.RNNBase]:
    """A model's recurrent layers."""
    return [module for module in model.modules() if isinstance(module, nn.RNNBase)]


def _in_float32(layer: nn.RNNBase, inputs: Tensor, *others: Any) -> Any:
    with torch.autocast(inputs.device.type, enabled=False):
        return type(layer).forward(layer, inputs.float(), *others)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The format to sum in: the given one, or float32 where that has less precision."""
    return torch.promote_types(dtype, torch.float32)
