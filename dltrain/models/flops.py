"""What training on an image costs in arithmetic."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

MATRIX_PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1}  # and the place of the first factor


class TrainingFlops(TorchDispatchMode):
    """Adds up the operations on numbers that the forward passes within it and their backward passes take.

    Convolutions, matrix products and attention count, which are nearly all there is. A product of n multiply-adds
    takes 2 n forward, and 2 n more for each of its two factors that needs a gradient: the images do not, so a first
    layer costs twice its forward pass and the others three times, and frozen ones less.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or else the compiler would be imported, which takes a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "convolution":
            images, weight, transposed = args[0], args[1], args[6]
            self._add((images if transposed else output).numel() * weight[0].numel(), images, weight)
        elif name in MATRIX_PRODUCTS:
            left, right = args[MATRIX_PRODUCTS[name] :][:2]
            self._add(output.numel() * left.shape[-1], left, right)
        elif name == "mkldnn_rnn_layer":  # a layer of an LSTM on a CPU: times, batch and inputs, then two weights
            sequences, of_inputs, of_states = args[:3]
            times = sequences.shape[0] * sequences.shape[1]
            self._add(times * of_inputs.numel(), sequences, of_inputs)
            self._add(times * of_states.numel(), of_states, of_states)
        elif name.startswith("_scaled_dot_product"):
            query, key, value = args[:3]
            weights = query.numel() // query.shape[-1] * key.shape[-2]
            self._add(weights * query.shape[-1], query, key)
            self._add(weights * value.shape[-1], query, value)
        return output

    def _add(self, multiply_adds: int, *factors: Tensor) -> None:
        self.total += 2 * multiply_adds * (1 + sum(factor.requires_grad for factor in factors))
