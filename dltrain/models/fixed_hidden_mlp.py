"""The notes' network of constant weights, a shared layer and control flow."""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

__all__ = ["fixed_hidden_mlp"]


class NotFiniteError(ValueError):
    """Values that no halving makes small; in a run it has diverged."""

    exit_code = 65


class FixedHiddenMLP(nn.Module):
    """Vectors (N, num_features) to sums (N, 1).

    X = L(X); X = relu(X R + 1); X = L(X), with one linear layer L and a constant matrix R, drawn once from U(0, 1);
    then X is halved while the sum of |X| is above 1, and summed. With `per_example` each row is halved by its own
    sum; without it, as in the notes, the batch makes one number, which every row is given: it tells no row from
    another. Raises ValueError for another output than one number, and where X is not finite: an Inf would be halved
    for ever.
    """

    constant: Tensor

    def __init__(self, *, num_features: int, num_outputs: int, per_example: bool = True) -> None:
        super().__init__()
        if num_outputs != 1:
            raise ValueError(f"it makes one number of an example, and these data want {num_outputs}")
        self.linear = nn.Linear(num_features, num_features)
        self.register_buffer("constant", torch.rand(num_features, num_features))
        self.per_example = per_example

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = self.linear(features)
        hidden = relu(hidden @ self.constant + 1)
        hidden = self.linear(hidden)
        if not torch.isfinite(hidden).all():
            raise NotFiniteError("fixed_hidden_mlp: a hidden value is not finite; try a lower optim.lr")
        axes = (1,) if self.per_example else (0, 1)
        while (large := hidden.abs().sum(axes, keepdim=True) > 1).any():
            hidden = torch.where(large, hidden / 2, hidden)
        return hidden.sum(1, keepdim=True) if self.per_example else hidden.sum().expand(len(features), 1)


fixed_hidden_mlp = FixedHiddenMLP
