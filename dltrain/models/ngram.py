"""An n-gram model: a table of what follows what."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["ngram"]

MOST_PARAMETERS = 100_000_000


class NGram(nn.Module):
    """Texts int64 (N, T) to logits (N, vocabulary, T), each by the `order` - 1 tokens up to its place alone.

    A row of the table (vocabulary ** (order - 1), vocabulary) holds the logits after one context, the newest token
    changing fastest: vocabulary ** order parameters. They begin at 0, a uniform distribution, and where the mean
    cross-entropy is least their softmax is the share with which each token follows the context, as counts give it. A
    window's first places lack tokens before them: they are predicted by the mean row over those, and teach nothing.
    """

    def __init__(self, *, input_shape: Sequence[int], num_outputs: int, order: int = 2) -> None:
        super().__init__()
        if len(input_shape) != 1:
            raise ValueError(f"an n-gram model reads tokens, not inputs of {'x'.join(map(str, input_shape))}")
        if order < 1:
            raise ValueError(f"order must be 1 or more, not {order}")
        if order > input_shape[0] + 1:
            told = f"order={order} looks back {order - 1} tokens, and the windows hold {input_shape[0]}"
            raise ValueError(f"{told}: lower the order or raise data.length")
        if order * math.log(num_outputs) > math.log(MOST_PARAMETERS):
            size = f"a table of {num_outputs} ** {order} numbers, and {MOST_PARAMETERS:,} is the most"
            raise ValueError(f"order={order} over a vocabulary of {num_outputs} takes {size}")
        self.order, self.size = order, num_outputs
        self.table = nn.Embedding(num_outputs ** (order - 1), num_outputs)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        contexts = torch.zeros_like(tokens)
        for age in range(min(self.order - 1, length)):
            contexts[:, age:] += tokens[:, : length - age] * self.size**age
        logits: Tensor = self.table(contexts)
        for place in range(min(self.order - 2, length)):
            known = self.size ** (place + 1)
            means = self.table.weight.detach().view(-1, known, self.size).mean(0)
            logits[:, place] = means[contexts[:, place]]
        return logits.transpose(1, 2)


ngram = NGram
