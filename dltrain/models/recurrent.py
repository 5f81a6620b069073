"""Recurrent networks over the rows of an image, or over the tokens of a text."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["gru", "lstm", "rnn"]


class OneHot(nn.Module):
    """Tokens int64 (...) to vectors float32 (..., size), 1 at the token's place and 0 elsewhere."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, tokens: Tensor) -> Tensor:
        # Not F.one_hot, which looks for numbers below 0 and makes a GPU wait for that.
        return (tokens.unsqueeze(-1) == torch.arange(self.size, device=tokens.device)).float()

    def extra_repr(self) -> str:
        return str(self.size)


class Rows(nn.Module):
    """Images (N, C, H, W) to sequences (N, H, C * W): a row is a time."""

    def forward(self, images: Tensor) -> Tensor:
        return images.transpose(1, 2).flatten(2)


class Recurrent(nn.Module):
    """Recurrent layers with an affine map on the last one's states; states are 0 before the first time.

    Images (N, C, H, W) are read row by row, and the last state leads to outputs (N, num_outputs). Texts int64 (N, T)
    lead to outputs (N, num_outputs, T), each from the state at its place; any T will do. Tokens become one-hot vectors
    or learned ones (`embedding` is their size). Dropout lies between layers and before the outputs. Recurrent weights
    and embeddings are drawn as torch draws them; `init` fills the output's.
    """

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        *,
        input_shape: Sequence[int],
        num_outputs: int,
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding: int | str = "one_hot",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for key, size in (("hidden_size", hidden_size), ("num_layers", num_layers)):
            if size < 1:
                raise ValueError(f"{key} must be 1 or more, not {size}")
        self.inputs, input_size = _inputs(input_shape, num_outputs, embedding)
        # Layers of their own: the dropout within a stacked one on CUDA draws from a state that no step's seed sets.
        sizes = [input_size, *[hidden_size] * num_layers]
        self.recurrent = nn.ModuleList(layer(*pair, batch_first=True) for pair in pairwise(sizes))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.output = nn.Linear(hidden_size, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.inputs(inputs)
        for place, layer in enumerate(self.recurrent):
            states, _ = layer(self.dropout(states) if place else states)
        outputs: Tensor = self.output(self.dropout(states if inputs.ndim == 2 else states[:, -1]))
        return outputs.transpose(1, 2) if inputs.ndim == 2 else outputs


def _inputs(shape: Sequence[int], vocabulary_size: int, embedding: int | str) -> tuple[nn.Module, int]:
    """What makes vectors of what a time brings, and their size."""
    if len(shape) == 3:
        channels, _, width = shape
        return Rows(), channels * width
    if len(shape) != 1:
        raise ValueError(f"inputs must be images or tokens, not {'x'.join(map(str, shape))}")
    if embedding == "one_hot":
        return OneHot(vocabulary_size), vocabulary_size
    if not isinstance(embedding, int) or embedding < 1:
        raise ValueError(f"embedding must be one_hot or a size of 1 or more, not {embedding}")
    return nn.Embedding(vocabulary_size, embedding), embedding


rnn = partial(Recurrent, nn.RNN)
gru = partial(Recurrent, nn.GRU)
lstm = partial(Recurrent, nn.LSTM)
