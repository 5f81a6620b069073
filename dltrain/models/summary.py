"""What a network is made of: its layers with output shapes, parameters and receptive fields, and what they cost."""

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from dltrain.models.flops import TrainingFlops


class LayerRow(NamedTuple):
    """Shapes are without the batch; parameters are those that no earlier row counts.

    The receptive field is the height in pixels that one output sees, None once that is the whole image.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    receptive_field: int | None


class Summary(NamedTuple):
    """The layers in the order in which they run, and the floating-point operations of training on one input."""

    layers: list[LayerRow]
    train_flops: int


def summarize(model: nn.Module, inputs: Tensor) -> Summary:
    """What a model does with inputs, of which the numbers do not matter, in evaluation mode.

    A layer is a module without children, or with parameters of its own. A copy runs, the model is not touched.
    """
    model = zero_copy(model).eval()
    fields, flops = ReceptiveFields(inputs), TrainingFlops()
    rows: list[LayerRow] = []
    counted: set[nn.Parameter] = set()

    def add_row(name: str, module: nn.Module, _: Any, outputs: Any) -> None:
        output = _tensors(outputs)[0]
        new = set(module.parameters()) - counted
        counted.update(new)
        parameters = sum(parameter.numel() for parameter in new)
        shape = tuple(output.shape[1:])
        rows.append(LayerRow(name, type(module).__name__, shape, parameters, fields.of(output)))

    for name, module in _layer_modules(model):
        module.register_forward_hook(partial(add_row, name))
    with torch.device("cpu"), torch.enable_grad(), fields, flops:
        model(inputs)
    return Summary(rows, flops.total // len(inputs))


def layers(model: nn.Module, *, input_shape: tuple[int, ...]) -> list[LayerRow]:
    """The layers alone, for inputs of a shape without the batch."""
    return summarize(model, zero_inputs(model, input_shape)).layers


def train_flops(model: nn.Module, *, input_shape: tuple[int, ...]) -> int:
    """The floating-point operations of training on one input alone."""
    return summarize(model, zero_inputs(model, input_shape)).train_flops


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def zero_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU whose parameters and buffers are zeros that take no memory.

    For shapes the meta device would do, but its first forward pass imports for more than a second.
    """
    zeros: dict[int, Any] = {}
    for buffer in model.buffers():
        zeros[id(buffer)] = torch.zeros((), dtype=buffer.dtype, device="cpu").expand(buffer.shape)
    for parameter in model.parameters():
        zero = torch.zeros((), dtype=parameter.dtype, device="cpu")
        zeros[id(parameter)] = nn.Parameter(zero.expand(parameter.shape), requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, zeros)


def zero_inputs(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    """A batch of two, of the parameters' type."""
    dtype = next((parameter.dtype for parameter in model.parameters()), None)
    return torch.zeros(2, *input_shape, dtype=dtype, device="cpu")


def _layer_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        is_layer = not [*module.children()] or [*module.parameters(recurse=False)]
        if is_layer and not isinstance(module, nn.Identity | nn.Sequential):
            yield name, module


class Field(NamedTuple):
    """The rows of the image that one row of a tensor sees, and those between one row's and the next one's."""

    size: float
    jump: float


PIXEL = Field(1, 1)
WHOLE_IMAGE = Field(math.inf, math.inf)

# The functions that slide a window over images, and their arguments up to the last that matters.
WINDOWED = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation"),
    "avg_pool2d": ("input", "kernel_size", "stride"),
}


class ReceptiveFields(TorchFunctionMode):
    """Follows the receptive field from tensor to tensor through every function, so through any graph.

    A convolution or pooling with kernel k, stride s and dilation d takes (size r, jump j) to
    (r + (k - 1) d j, j s) (course notes). Where branches meet the largest field counts.
    What changes the sides in another way, padding apart, or gives no images, has seen the whole image.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.fields = WeakTensorKeyDictionary()
        self.fields[images] = PIXEL if images.dim() == 4 else WHOLE_IMAGE

    def of(self, tensor: Tensor) -> int | None:
        size = self.fields.get(tensor, WHOLE_IMAGE).size
        return None if math.isinf(size) else int(size)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        outputs = func(*args, **kwargs)
        sources = [tensor for tensor in _tensors((args, kwargs)) if tensor in self.fields]
        if sources:
            name = getattr(func, "__name__", "")
            for output in _tensors(outputs):
                self.fields[output] = self._after(name, args, kwargs, sources, output)
        return outputs

    def _after(self, name: str, args: Any, kwargs: Any, sources: list[Tensor], output: Tensor) -> Field:
        field = max(self.fields[source] for source in sources)
        if name in WINDOWED and field != WHOLE_IMAGE:
            kernel_size, stride, dilation = _window(name, args, kwargs)
            return Field(field.size + (kernel_size - 1) * dilation * field.jump, field.jump * stride)
        same_sides = name == "pad" or any(source.shape[2:] == output.shape[2:] for source in sources)
        return field if output.dim() == 4 and same_sides else WHOLE_IMAGE


def _window(name: str, args: Any, kwargs: Any) -> Iterator[int]:
    """Kernel size, stride and dilation along the height."""
    given = dict(zip(WINDOWED[name], args, strict=False)) | kwargs
    kernel_size = given["weight"].shape[2:] if name == "conv2d" else given["kernel_size"]
    stride = given.get("stride") or (1 if name == "conv2d" else kernel_size)
    for side in (kernel_size, stride, given.get("dilation", 1)):
        yield side if isinstance(side, int) else side[0]


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
